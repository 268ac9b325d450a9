"""What a backup says of the ledger it was taken from, and what a restore changes in it."""

from __future__ import annotations

import msgspec

from ledger.db import Executor
from ledger.store.queries import QUERIES


class Position(msgspec.Struct, frozen=True):
    """How far a partition was drained, and the head of its hash chain in hexadecimal."""

    partition: int
    epoch: int
    last_id: str
    drained: int
    audit_head: str


async def export_snapshot(db: Executor) -> str:
    """The name under which pg_dump sees what this transaction sees, for as long as it is open;
    it may be idle as long as it has to."""
    return str(await db.fetchval(QUERIES["export_snapshot"]))


async def applied_migrations(db: Executor) -> list[str]:
    return [row["name"] for row in await db.fetch(QUERIES["applied_migrations"])]


async def positions(db: Executor) -> list[Position]:
    return [Position(**dict(row)) for row in await db.fetch(QUERIES["positions"])]


async def row_counts(db: Executor) -> dict[str, int]:
    """The rows of every table; empty for a database without tables."""
    counters = await db.fetch(QUERIES["row_counters"])
    return {row["name"]: int(await db.fetchval(row["counter"])) for row in counters}


async def database_exists(db: Executor, name: str) -> bool:
    return bool(await db.fetchval(QUERIES["database_exists"], name))


async def connected_sessions(db: Executor, name: str) -> int:
    """How many other sessions use a database of this server."""
    return int(await db.fetchval(QUERIES["connected_sessions"], name))


async def renew_terms(db: Executor) -> None:
    """Makes the terms of every subscription, and the counts of every partition, newer than any
    that Redis may have seen."""
    for name in ("skip_versions", "renew_versions", "renew_revisions"):
        await db.execute(QUERIES[name])
