"""Work that is owed once a transaction is committed."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ledger.db import Executor
from ledger.store.queries import QUERIES


async def insert(db: Executor, topic: str, payload: str) -> int:
    """Owes the work that `payload` (JSON) says; its id. In the transaction that makes it so."""
    return int(await db.fetchval(QUERIES["insert_outbox"], topic, payload))


async def due(db: Executor, topic: str, most: int) -> list[int]:
    return [row["outbox_id"] for row in await db.fetch(QUERIES["due_outbox"], topic, most)]


async def claim(db: Executor, outbox_id: int, for_s: int) -> str | None:
    """The payload, left to the caller for so many seconds; None when it is done or another's."""
    payload: str | None = await db.fetchval(QUERIES["claim_outbox"], outbox_id, for_s)
    return payload


async def done_after(db: Executor, outbox_id: int, times: int) -> None:
    """It has been done once more, and so many times are enough."""
    await db.execute(QUERIES["done_outbox_after"], outbox_id, times)


class Overdue(msgspec.Struct, frozen=True):
    """How much is undone for too long, how old the oldest is, and why it last failed, if it did."""

    rows: int
    oldest_s: int
    reason: str | None


async def explain(db: Executor, outbox_id: int, reason: str) -> None:
    """Why an attempt failed."""
    await db.execute(QUERIES["explain_outbox"], outbox_id, reason)


async def overdue(db: Executor, after_s: int) -> Overdue:
    """What is undone for more than so many seconds."""
    return Overdue(**dict(await db.fetchrow(QUERIES["overdue_outbox"], after_s)))


async def await_partitions(db: Executor, outbox_id: int, partitions: Iterable[int]) -> None:
    """Done once a control entry of each of these partitions is drained."""
    await db.execute(QUERIES["await_outbox"], outbox_id, list(partitions))


async def drained(db: Executor, outbox_id: int, partition: int) -> None:
    await db.execute(QUERIES["drained_outbox"], outbox_id, partition)
