"""Months of usage records that two ledgers make at once."""

from __future__ import annotations

import asyncio
from datetime import date

from ledger import db, store

NEXT = date(2031, 5, 1)
WITHIN_S = 5.0  # of a hang, not of a busy machine


async def test_a_month_that_another_ledger_is_just_making_is_there_for_both(
    connection: db.Connection, database_url: str
) -> None:
    other = await db.connect(database_url, patient=True)
    try:
        async with other.transaction():
            await store.ensure_usage_month(other, NEXT)
            second = asyncio.create_task(store.ensure_usage_month(connection, NEXT))
            await _somebody_waits(other)
        await second
    finally:
        await other.close()
    assert await connection.fetchval("SELECT to_regclass('usage_records_2031_05') IS NOT NULL")


async def _somebody_waits(sql: db.Connection) -> None:
    waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
    async with asyncio.timeout(WITHIN_S):
        while not await sql.fetchval(waiting):  # noqa: ASYNC110 - Postgres does not tell
            await asyncio.sleep(0.01)
