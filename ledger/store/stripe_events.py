"""What Stripe has told, each event once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.domain.stripe_event import StripeEvent
from ledger.store.queries import QUERIES


class Waiting(msgspec.Struct, frozen=True):
    """How many events nobody has seen to, and how long ago the oldest came."""

    waiting: int
    oldest_s: int


async def insert(db: Executor, event: StripeEvent, now: datetime) -> None:
    """Keeps it; nothing, if it is there."""
    await db.execute(
        QUERIES["insert_stripe_event"],
        event.event_id,
        event.type,
        event.stripe_invoice_id,
        event.created_at,
        now,
    )


async def waiting(db: Executor, stripe_invoice_id: str) -> list[StripeEvent]:
    rows = await db.fetch(QUERIES["waiting_stripe_events"], stripe_invoice_id)
    return [StripeEvent(**dict(row)) for row in rows]


async def done(
    db: Executor, event_ids: Sequence[str], invoice_id: UUID | None, now: datetime
) -> set[str]:
    """Seen to; which of them nobody had seen to before."""
    rows = await db.fetch(QUERIES["stripe_events_done"], event_ids, invoice_id, now)
    return {row["event_id"] for row in rows}


async def forget(db: Executor, done_before: datetime, most: int) -> None:
    """Drops what was seen to before then; what came of it stays."""
    await db.execute(QUERIES["forget_stripe_events"], done_before, most)


async def state(db: Executor) -> Waiting:
    return Waiting(**dict(await db.fetchrow(QUERIES["stripe_events_state"])))
