"""What DURABILITY may be, and where production does not start."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from gateway import __main__ as program
from gateway.dev.servers import Valkey
from ledger import db, durability, settings
from ledger.domain.durability import Profile, Wanted
from ledger.settings import SettingError, Settings
from lua.cluster import Cluster
from lua.connection import RedisConnection
from lua.multiplexer import Multiplexer

ROOT = Path(__file__).resolve().parents[2]
URLS = {"REDIS_URL": "localhost:6379", "DATABASE_URL": "postgresql://localhost/billing"}


@pytest.mark.parametrize(
    ("variables", "set_to"),
    [
        ({}, ("default", 0)),
        ({"DURABILITY": "dev-fast"}, ("dev-fast", 0)),
        ({"DURABILITY": "replicated", "DURABILITY_REPLICAS": "2"}, ("replicated", 2)),
    ],
)
def test_a_profile_is_read(variables: dict[str, str], set_to: tuple[str, int]) -> None:
    config = settings.load(URLS | variables)
    assert (config.durability, config.durability_replicas) == set_to
    wanted = durability.wanted(config)
    assert (wanted.profile.label, wanted.replicas) == set_to


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"DURABILITY": "safest"}, "DURABILITY: must be one of dev-fast, default, replicated"),
        ({"DURABILITY": "replicated"}, "DURABILITY_REPLICAS: is required"),
        ({"DURABILITY": "replicated", "DURABILITY_REPLICAS": "0"}, "DURABILITY_REPLICAS: must be"),
        ({"DURABILITY_REPLICAS": "1"}, "DURABILITY_REPLICAS: is for DURABILITY=replicated only"),
    ],
)
def test_a_profile_that_cannot_be_meant_is_refused(variables: dict[str, str], says: str) -> None:
    with pytest.raises(SettingError, match=f"^{says}"):
        settings.load(URLS | variables)


@pytest.fixture
async def production(
    valkey: Valkey, settings: Settings, redis: RedisConnection
) -> AsyncIterator[Settings]:
    """As `settings.load` will allow it one day; the server's appendfsync is taken back."""
    yield msgspec.structs.replace(settings, environment="production")
    await redis.run("CONFIG", "SET", "appendfsync", "always")


async def test_production_starts_only_where_the_setting_is_kept(
    production: Settings, redis: RedisConnection
) -> None:
    assert await durability.refused_at_start(production) is None
    await redis.run("CONFIG", "SET", "appendfsync", "everysec")
    line = await durability.refused_at_start(production)
    assert line is not None
    assert line.startswith("DURABILITY: is default, in force is dev-fast: redis: appendfsync")
    fast = msgspec.structs.replace(production, durability="dev-fast")
    assert await durability.refused_at_start(fast) is None
    in_dev = msgspec.structs.replace(production, environment="dev")
    assert await durability.refused_at_start(in_dev) is None


async def test_the_gateway_says_why_and_ends_with_2(
    production: Settings,
    redis: RedisConnection,
    database_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(program, "_stop_signals", asyncio.Event)  # those are of the test's process
    await redis.run("CONFIG", "SET", "appendfsync", "everysec")
    assert await program.parent(production) == 2
    said = capsys.readouterr().err
    assert said.startswith("gateway: DURABILITY: is default, in force is dev-fast: ")
    assert said.count("\n") == 1


async def test_the_ledger_says_it_and_drains_all_the_same(
    settings: Settings, connection: db.Connection, redis: RedisConnection
) -> None:
    """What a weak Redis holds is safer in Postgres."""
    await redis.run("CONFIG", "SET", "appendfsync", "everysec")
    environ = {
        **os.environ,
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "PARTITIONS": str(settings.partitions),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ledger", env=environ, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            async for line in process.stdout:
                said = msgspec.json.decode(line)
                if said["event"] == "durability":
                    break
            assert (said["level"], said["in_force"]) == ("warning", "dev-fast")
            assert "appendfsync" in said["reasons"][0]
            vouched = "SELECT COUNT(*) FROM stream_cursor WHERE replid <> ''"
            while await connection.fetchval(vouched) < settings.partitions:
                pass
    finally:
        process.terminate()
        assert await process.wait() == 0
        await redis.run("CONFIG", "SET", "appendfsync", "always")


async def test_a_weakness_is_logged_when_it_comes_and_when_it_goes(
    production: Settings, redis: RedisConnection
) -> None:
    server = Cluster(production.redis_url, Multiplexer)
    watch = durability.Watch(server, durability.wanted(production))
    with capture_logs() as logs:
        for fsync in ("always", "everysec", "everysec", "always", "always"):
            await redis.run("CONFIG", "SET", "appendfsync", fsync)
            await watch.look()
    await server.close()
    said = [(one["log_level"], one["in_force"]) for one in logs]
    assert said == [("warning", "dev-fast"), ("info", "default")]


async def test_a_file_that_was_switched_on_counts_after_its_first_rewrite() -> None:
    looks = [(0, 0), (1, 1), (1, 1), (1, 0), (1, 1)]  # enabled, rewriting

    class Redis:
        async def run(self, *command: Any) -> Any:
            if command[0] == "CONFIG":
                return [b"appendfsync", b"always", b"no-appendfsync-on-rewrite", b"no"]
            enabled, rewriting = looks.pop(0)
            said = f"role:master\naof_enabled:{enabled}\naof_rewrite_in_progress:{rewriting}\n"
            return said.encode()

        async def primaries(self) -> dict[str, Any]:
            return {"redis": self}

    redis: Any = Redis()
    watch = durability.Watch(redis, Wanted(Profile.DEFAULT))
    assert [(await watch.look()).verdict.kept for _ in range(5)] == [
        False,
        False,
        False,
        True,
        True,
    ]


async def test_a_redis_that_does_not_answer_keeps_nobody_from_starting(
    production: Settings,
) -> None:
    """What is recorded on it is decided when it is back."""
    absent = msgspec.structs.replace(production, redis_url="redis://127.0.0.1:1")
    assert await durability.refused_at_start(absent) is None
