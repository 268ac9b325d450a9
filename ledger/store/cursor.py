"""How far each partition has been drained, from which Redis."""

from __future__ import annotations

import msgspec

from ledger.db import Executor
from ledger.store.queries import QUERIES

# Longer than a drain transaction: whoever has the row is working, or will be thrown out.
LOCK_TIMEOUT = "6s"


class Cursor(msgspec.Struct, frozen=True):
    """How far a partition has been drained, from which server; the place of its last record, the
    revision of its counts, which grows when they change otherwise than Redis counted (a repeat, a
    settled dead letter, a recalculation), and the head of its hash chain."""

    partition: int
    epoch: int
    replid: str
    last_id: str
    drained: int
    position: int
    revision: int
    audit_head: bytes


class Lease(msgspec.Struct, frozen=True):
    """A cursor row held by this transaction, with what the drain needs besides."""

    cursor: Cursor
    trim_id: str
    trim_due: bool


async def count_cursors(db: Executor) -> int:
    """How many partitions the database was made with; 0 when it is new."""
    return int(await db.fetchval(QUERIES["count_cursors"]))


async def ensure_cursors(db: Executor, partitions: int) -> int:
    """Makes the cursor rows of a new database; returns how many it has."""
    await db.execute(QUERIES["insert_cursors"], partitions)
    return await count_cursors(db)


async def cursor(db: Executor, partition: int) -> Cursor:
    return Cursor(**dict(await db.fetchrow(QUERIES["cursor"], partition)))


async def cursors(db: Executor) -> list[Cursor]:
    return [Cursor(**dict(row)) for row in await db.fetch(QUERIES["cursors"])]


async def lease_cursor(db: Executor, partition: int, retention_s: int) -> Lease | None:
    """The row, locked until the transaction ends; None while another worker has it."""
    row = await db.fetchrow(QUERIES["lease_cursor"], partition, retention_s)
    if row is None:
        return None
    cursor = Cursor(**{name: row[name] for name in Cursor.__struct_fields__})
    return Lease(cursor, row["trim_id"], row["trim_due"])


async def hold_cursor(db: Executor, partition: int) -> Cursor:
    """The row, locked until the transaction ends; waits for whoever has it. Raises
    `ledger.db.LockNotAvailable` when that takes too long."""
    await db.execute(QUERIES["limit_wait"], LOCK_TIMEOUT)
    return Cursor(**dict(await db.fetchrow(QUERIES["hold_cursor"], partition)))


async def end_frozen(db: Executor, seconds: int) -> int:
    """Ends the sessions that hold a partition and have not gone on with their statement for so
    long: their process is frozen. How many."""
    return int(await db.fetchval(QUERIES["end_frozen"], seconds))


async def vouch(db: Executor, partition: int, epoch: int, replid: str) -> None:
    await db.execute(QUERIES["vouch"], partition, epoch, replid)


async def advance_cursor(
    db: Executor,
    partition: int,
    last_id: str,
    drained: int,
    position: int,
    head: bytes,
    *,
    new_trim: bool,
) -> None:
    await db.execute(
        QUERIES["advance_cursor"], partition, last_id, drained, position, head, new_trim
    )


async def settle(db: Executor, partition: int, position: int, head: bytes) -> None:
    """Takes over what a settled dead letter added to the partition's order; the next revision."""
    await db.execute(QUERIES["settle"], partition, position, head)


async def skip_gap(db: Executor, partition: int, last_id: str, drained: int) -> None:
    await db.execute(QUERIES["skip_gap"], partition, last_id, drained)


async def bump_revision(db: Executor, partition: int) -> int:
    """The partition's next revision. Only while holding the row."""
    return int(await db.fetchval(QUERIES["bump_revision"], partition))


async def clock_offset(db: Executor) -> int:
    return int(await db.fetchval(QUERIES["clock_offset"]))


async def advance_clock(db: Executor, offset_ms: int) -> bool:
    """Whether the test clock could be set so far ahead: it never goes back."""
    return await db.fetchval(QUERIES["advance_clock"], offset_ms) is not None
