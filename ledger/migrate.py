"""Applies the migrations: numbered SQL files, once each, in order, checksums kept.

Sixty lines of our own because the usual tools failed here: one let two of three parallel
starters fail, the others bring a second database driver or an ORM.
"""

from __future__ import annotations

import asyncio
import re
from hashlib import sha256
from importlib.resources import files

import asyncpg
import msgspec

from ledger import catalogue, db

_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_LOCK = 8_081_001  # any fixed number: one migrator at a time per database
_LOCK_POLL_S = 0.1


class MigrationError(Exception):
    """The database cannot be brought to this version; the message names the migration."""


class Migration(msgspec.Struct, frozen=True):
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return sha256(self.sql.encode()).hexdigest()


def shipped() -> list[Migration]:
    """The migrations of this version, in order, without gaps."""
    names = sorted(entry.name for entry in files("migrations").iterdir() if _NAME.match(entry.name))
    found = [
        Migration(int(name[:4]), name, files("migrations").joinpath(name).read_text("utf-8"))
        for name in names
    ]
    for expected, migration in enumerate(found, start=1):
        if migration.number != expected:
            raise MigrationError(f"{migration.name}: expected number {expected:04d}")
    return found


async def migrate(database_url: str) -> int:
    """Brings the database to this version and loads the shipped catalogue; safe to run anywhere,
    any time, in parallel. Returns how many migrations were applied. Raises `MigrationError`."""
    connection = await db.connect(database_url, patient=True)
    try:
        # Polled, because a waiter in pg_advisory_lock deadlocks with CREATE INDEX CONCURRENTLY.
        while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):  # noqa: ASYNC110
            await asyncio.sleep(_LOCK_POLL_S)
        applied = await _apply(connection)
        await catalogue.load_shipped(connection)
        return applied
    finally:
        await connection.close()


async def pending(connection: db.Connection) -> list[str]:
    """Names of migrations that this database lacks. Raises `MigrationError` on a changed one."""
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return [migration.name for migration in shipped()]
    rows = await connection.fetch("SELECT number, checksum FROM schema_migrations")
    known = {row["number"]: row["checksum"] for row in rows}
    missing = []
    for migration in shipped():
        checksum = known.pop(migration.number, None)
        if checksum is None:
            missing.append(migration.name)
        elif checksum != migration.checksum:
            raise MigrationError(f"{migration.name} was changed after it had been applied")
    if known:
        raise MigrationError(
            f"the database has migration {max(known):04d}, which this version does not know: "
            "it was migrated by a newer version"
        )
    return missing


async def _apply(connection: db.Connection) -> int:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (number INTEGER PRIMARY KEY,"
        " name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at TIMESTAMPTZ DEFAULT NOW())"
    )
    missing = set(await pending(connection))
    for migration in shipped():
        if migration.name not in missing:
            continue
        try:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO schema_migrations (number, name, checksum) VALUES ($1, $2, $3)",
                    migration.number,
                    migration.name,
                    migration.checksum,
                )
        except asyncpg.PostgresError as error:
            raise MigrationError(f"{migration.name}: {error}") from error
    return len(missing)
