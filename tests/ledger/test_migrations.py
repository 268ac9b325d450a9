"""Migrations: once each, in order, whoever starts them; anything unexpected is refused."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from gateway.dev.postgres import Postgres
from ledger import db, loops, migrate, store
from ledger.migrate import Migration, MigrationError
from ledger.store import QUERIES


@pytest.fixture
async def empty_url(postgres: Postgres, database_url: str) -> str:
    """A database without our tables."""
    parts = urlsplit(database_url)
    connection = await asyncpg.connect(postgres.url)
    name = f"empty_{parts.path.removeprefix('/')}"
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    await connection.close()
    return urlunsplit(parts._replace(path=f"/{name}"))


async def names(url: str) -> list[str]:
    connection = await db.connect(url)
    try:
        return await migrate.pending(connection)
    finally:
        await connection.close()


async def test_a_second_run_does_nothing(empty_url: str) -> None:
    shipped = [one.name for one in migrate.shipped()]
    assert await names(empty_url) == shipped
    assert await migrate.migrate(empty_url) == len(shipped)
    assert await migrate.migrate(empty_url) == 0
    assert await names(empty_url) == []


async def test_parallel_starters_apply_each_migration_once(empty_url: str) -> None:
    applied = await asyncio.gather(*(migrate.migrate(empty_url) for _ in range(4)))
    assert sum(applied) == len(migrate.shipped())
    connection = await db.connect(empty_url)
    assert await connection.fetchval("SELECT COUNT(*) FROM billing_plans") == 3
    await connection.close()


async def test_a_changed_migration_is_refused(connection: db.Connection, database_url: str) -> None:
    await connection.execute("UPDATE schema_migrations SET checksum = 'other' WHERE number = 1")
    for attempt in (names(database_url), migrate.migrate(database_url)):
        with pytest.raises(MigrationError, match=r"0001_ledger\.sql was changed"):
            await attempt


async def test_a_database_of_a_newer_version_is_refused(
    connection: db.Connection, database_url: str
) -> None:
    await connection.execute("INSERT INTO schema_migrations VALUES (9999, 'later', 'x')")
    for attempt in (names(database_url), migrate.migrate(database_url)):
        with pytest.raises(MigrationError, match="9999"):
            await attempt


async def test_a_gap_in_the_numbers_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("migrations")
    for name in ("0001_first.sql", "0003_third.sql", "notes.txt"):
        (folder / name).write_text("SELECT 1")
    monkeypatch.setattr(migrate, "files", lambda _: folder)
    with pytest.raises(MigrationError, match=r"0003_third\.sql: expected number 0002"):
        migrate.shipped()


async def test_a_failing_migration_leaves_nothing_and_is_named(
    connection: db.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = len(migrate.shipped())
    broken = Migration(last + 1, "9998_broken.sql", "CREATE TABLE half (); SELECT 1 / 0")
    shipped = [*migrate.shipped(), broken]
    monkeypatch.setattr(migrate, "shipped", lambda: shipped)
    with pytest.raises(MigrationError, match=r"9998_broken\.sql"):
        await migrate.migrate(database_url)
    assert await connection.fetchval("SELECT to_regclass('half')") is None
    mended = Migration(last + 1, "9998_broken.sql", "CREATE TABLE half ()")
    shipped[-1] = mended
    assert await migrate.migrate(database_url) == 1


async def test_places_go_on_after_the_last_that_was_sealed(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = migrate.shipped()
    monkeypatch.setattr(migrate, "shipped", lambda: shipped[:1])
    await migrate.migrate(empty_url)
    connection = await db.connect(empty_url)
    try:
        await connection.execute(
            "INSERT INTO stream_cursor (partition, drained) VALUES (0, 9), (1, 0)"
        )
        await connection.execute(
            "INSERT INTO audit_seals VALUES (0, 3, 1, 3, '', ''), (0, 7, 5, 2, '', '')"
        )
        monkeypatch.setattr(migrate, "shipped", lambda: shipped)
        await migrate.migrate(empty_url)
        assert [row.position for row in await store.cursors(connection)] == [7, 0]
    finally:
        await connection.close()


async def test_loading_the_catalogue_again_leaves_what_was_changed(
    connection: db.Connection, database_url: str
) -> None:
    await connection.execute("UPDATE billing_plans SET name = 'Ours' WHERE plan_tier = 'basic'")
    await migrate.migrate(database_url)
    assert await connection.fetchval(
        "SELECT array_agg(name) FROM billing_plans WHERE plan_tier = 'basic'"
    ) == ["Ours"]


async def test_every_query_fits_the_schema(postgres: Postgres) -> None:
    connection = await asyncpg.connect(postgres.url)
    failed = {}
    try:
        await connection.execute(QUERIES["make_stripe_seen"])  # of a session, not of the schema
        for name, sql in QUERIES.items():
            try:
                await connection.prepare(sql)
            except asyncpg.PostgresError as error:
                failed[name] = str(error)
    finally:
        await connection.close()
    assert len(QUERIES) > 20
    assert failed == {}


async def test_the_number_of_partitions_is_fixed_at_first_start(
    connection: db.Connection,
) -> None:
    await loops.check_partitions(connection, 4)
    await loops.check_partitions(connection, 4)
    with pytest.raises(loops.PartitionsChanged, match="PARTITIONS=4"):
        await loops.check_partitions(connection, 8)


async def test_postgres_refuses_a_quantity_that_is_no_number(connection: db.Connection) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(
            "INSERT INTO usage_totals VALUES ('user:x', 'api_calls', NOW(), 'NaN', 1)"
        )
