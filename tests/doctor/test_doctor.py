"""What ``./run doctor`` says of set-ups that are wrong in one way each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
import pytest

from gateway import cli, doctor
from gateway.dev.postgres import Postgres
from ledger import db, loops, store
from ledger.settings import Settings
from lua import keys
from lua.connection import RedisConnection
from lua.multiplexer import Multiplexer
from tests.conftest import Service


async def report(settings: Settings) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"ok": [], "warning": [], "problem": []}
    async for finding in doctor.examine(settings):
        found[finding.level].append(finding.line)
    return found


@asynccontextmanager
async def setting(redis: RedisConnection, name: str, value: str) -> AsyncIterator[None]:
    before = (await redis.run("CONFIG", "GET", name))[1]
    await redis.run("CONFIG", "SET", name, value)
    try:
        yield
    finally:
        await redis.run("CONFIG", "SET", name, before)


async def test_a_sound_installation_has_no_problem(service: Service) -> None:
    await service.post("/usage", {"user_id": "a", "usage_type": "api_calls", "quantity": 1})
    found = await report(service.settings)
    assert (found["problem"], found["warning"]) == ([], [])
    assert len(found["ok"]) == 6


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
        ("appendonly", "no", "appendonly yes"),
        ("appendfsync", "everysec", "appendfsync always"),
    ],
)
async def test_a_redis_setting_that_can_lose_usage_is_named_with_its_mend(
    service: Service, name: str, value: str, word: str
) -> None:
    async with setting(service.redis, name, value):
        [line] = (await report(service.settings))["problem"]
    assert name in line
    assert word in line


async def test_a_weakness_that_the_setting_allows_is_a_warning(service: Service) -> None:
    async with setting(service.redis, "appendfsync", "everysec"):
        found = await report(msgspec.structs.replace(service.settings, durability="dev-fast"))
    assert found["problem"] == []
    [line] = found["warning"]
    assert "appendfsync everysec" in line


async def test_an_unreachable_redis_is_named(service: Service) -> None:
    wrong = msgspec.structs.replace(service.settings, redis_url="redis://:hush@127.0.0.1:1")
    [line] = (await report(wrong))["problem"]
    assert "REDIS_URL" in line
    assert "hush" not in line


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"port": 1}, "is DATABASE_URL right"),
        ({"password": "wrong"}, "user or password"),
        ({"database": "nowhere"}, "does not exist"),
    ],
)
async def test_an_unusable_postgres_is_named(
    service: Service, change: dict[str, str | int], says: str
) -> None:
    parts = urlsplit(service.settings.database_url)
    password = change.get("password", parts.password)
    port = change.get("port", parts.port)
    database = change.get("database", parts.path[1:])
    url = f"postgresql://{parts.username}:{password}@127.0.0.1:{port}/{database}"
    wrong = msgspec.structs.replace(service.settings, database_url=url)
    [line] = (await report(wrong))["problem"]
    assert says in line
    assert str(parts.password) not in line


async def test_a_missing_migration_is_named(service: Service, postgres: Postgres) -> None:
    parts = urlsplit(postgres.url)
    admin = await asyncpg.connect(urlunsplit(parts._replace(path="/postgres")))
    await admin.execute("CREATE DATABASE not_migrated")
    await admin.close()
    url = urlunsplit(parts._replace(path="/not_migrated"))
    [line] = (await report(msgspec.structs.replace(service.settings, database_url=url)))["problem"]
    assert "0001_ledger.sql is not applied" in line
    assert "./run migrate" in line


async def test_clocks_that_are_apart_are_named(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = doctor._redis_time

    async def late(redis: Multiplexer) -> int:
        return await real(redis) + 61_000

    monkeypatch.setattr(doctor, "_redis_time", late)
    [line] = (await report(service.settings))["problem"]
    assert line.startswith("clocks:")


async def test_a_time_that_was_moved_is_a_warning(service: Service) -> None:
    await store.advance_clock(service.sql, 90_000)
    [line] = (await report(service.settings))["warning"]
    assert "ahead by 0:01:30;" in line


async def test_another_number_of_partitions_is_named(
    settings: Settings, connection: db.Connection, redis: RedisConnection
) -> None:
    await loops.check_partitions(connection, settings.partitions)
    wrong = msgspec.structs.replace(settings, partitions=settings.partitions + 1)
    assert "PARTITIONS" in (await report(wrong))["problem"][0]


async def test_redis_and_postgres_of_two_installations_are_noticed(service: Service) -> None:
    await service.post("/usage", {"user_id": "a", "usage_type": "api_calls", "quantity": 1})
    await service.sql.execute("UPDATE stream_cursor SET replid = 'another'")
    [line] = (await report(service.settings))["problem"]
    assert "history that this database does not know" in line
    assert line.endswith("look at ./run adopt-redis 1")


async def test_a_database_restored_too_far_back_is_named_with_its_partitions(
    service: Service,
) -> None:
    await service.drained()
    await service.redis.run("HSET", keys.meta(2), "floor", "9-0")
    [line] = (await report(service.settings))["problem"]
    assert "partitions 2 lack usage" in line
    assert line.endswith("./run accept-gap 2")


async def test_open_dead_letters_are_a_warning(service: Service) -> None:
    insert = "INSERT INTO dead_letters (partition, stream_id, entry, reason, status) VALUES "
    await service.sql.execute(insert + "(0, '1-0', '{}', 'x', 'open')")
    await service.sql.execute(insert + "(0, '2-0', '{}', 'x', 'discarded')")
    found = await report(service.settings)
    assert found["problem"] == []
    assert found["warning"] == ["ledger: 1 dead letters; ./run dead-letters list"]


async def test_a_database_restored_from_before_what_redis_has_is_named(service: Service) -> None:
    await service.redis.run("HSET", keys.meta(2), "floor", "1-0")  # the cursor is still at 0-0
    [line] = (await report(service.settings))["problem"]
    assert line.startswith("postgres: partitions 2 lack usage that Redis no longer has")


async def test_a_default_tier_that_does_not_exist_is_named(service: Service) -> None:
    wrong = msgspec.structs.replace(service.settings, default_tier="gold")
    [line] = (await report(wrong))["problem"]
    assert line.startswith("BILLING_TIER_DEFAULT")


def test_a_bad_variable_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("BILLING_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", "localhost:6379")
    monkeypatch.setenv("DATABASE_URL", "mysql://user:hush@localhost/db")
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr() == ("", "billing: DATABASE_URL: must start with postgresql://\n")
