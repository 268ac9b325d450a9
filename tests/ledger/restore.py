"""A backup of the ledger, and the database brought back to it."""

from __future__ import annotations

from ledger import db

TABLES = (
    "usage_records", "usage_keys", "usage_totals", "usage_refunds", "dead_letters",
    "audit_seals", "audit_events", "audit_chains", "stream_cursor", "reconcile_state",
    "billable_usage",
)  # fmt: skip


async def back_up(sql: db.Connection) -> None:
    for table in TABLES:
        await sql.execute(f"CREATE TABLE kept_{table} AS TABLE {table}")


async def restore(sql: db.Connection) -> None:
    async with sql.transaction():
        for table in TABLES:
            await sql.execute(f"TRUNCATE {table}")
            await sql.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE kept_{table}")
