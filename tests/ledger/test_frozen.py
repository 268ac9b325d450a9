"""A worker that hangs with a partition in its hands: Postgres lets go of it, another takes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from ledger import db, store
from tests.ledger.stream import Partition


@asynccontextmanager
async def sending_rows(url: str, *, holding: bool) -> AsyncIterator[asyncio.Task[object]]:
    """A session that hangs in the middle of a COPY, with partition 0 or without."""
    connection = await db.connect(url)
    sent = asyncio.Event()

    async def rows() -> AsyncIterator[bytes]:
        sent.set()
        await asyncio.Event().wait()
        yield b""

    async def work() -> None:
        async with connection.transaction():
            await connection.execute("CREATE TEMP TABLE sent (row TEXT)")
            if holding:
                await store.hold_cursor(connection, 0)
            await connection.copy_to_table("sent", source=rows())

    working = asyncio.create_task(work())
    await sent.wait()
    try:
        yield working
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError, *db.UNAVAILABLE, db.PostgresError):
            await working
        connection.terminate()


async def test_who_hangs_within_a_statement_loses_its_partition(
    partition: Partition, database_url: str
) -> None:
    async with sending_rows(database_url, holding=True):
        assert await store.lease_cursor(partition.sql, 0, 600) is None
        async with asyncio.timeout(10):
            while not await store.end_frozen(partition.sql, 0):
                pass
            while await store.lease_cursor(partition.sql, 0, 600) is None:
                pass


async def test_who_goes_on_with_its_statement_or_has_no_partition_is_left_alone(
    partition: Partition, database_url: str
) -> None:
    async with (
        sending_rows(database_url, holding=True) as healthy,
        sending_rows(database_url, holding=False) as other,
    ):
        assert await store.end_frozen(partition.sql, 60) == 0
        healthy.cancel()
        assert await asyncio.wait([healthy])
        for _ in range(20):
            assert await store.end_frozen(partition.sql, 0) == 0
        assert not other.done()


async def test_a_frozen_session_between_statements_is_bounded_by_postgres(
    partition: Partition,
) -> None:
    assert await partition.sql.fetchval("SHOW idle_in_transaction_session_timeout") == "3s"
