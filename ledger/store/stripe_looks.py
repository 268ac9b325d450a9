"""Which invoices are to be looked at in Stripe, and when. Times are real ones unless said."""

from __future__ import annotations

from datetime import datetime

import msgspec

from ledger.db import Executor
from ledger.store.queries import QUERIES


class OverdueLooks(msgspec.Struct, frozen=True):
    """How many invoices were to be looked at by now, the oldest of them so long ago."""

    invoices: int
    oldest_s: int


async def overdue(db: Executor) -> OverdueLooks:
    return OverdueLooks(**dict(await db.fetchrow(QUERIES["overdue_stripe_looks"])))


async def plan(db: Executor, now: datetime, poll_at: datetime) -> None:
    """Every invoice that is open in Stripe will be looked at, told of or not."""
    await db.execute(QUERIES["plan_stripe_looks"], now, poll_at)


async def due(db: Executor, now: datetime, service_now: datetime, most: int) -> list[str]:
    """Stripe's ids of what is to be looked at."""
    rows = await db.fetch(QUERIES["due_stripe_looks"], now, service_now, most)
    return [row["stripe_invoice_id"] for row in rows]


async def steps_wait(db: Executor, service_now: datetime) -> bool:
    """Whether a step is due that nobody has tried to take."""
    return bool(await db.fetchval(QUERIES["stripe_steps_wait"], service_now))


async def claim(db: Executor, stripe_invoice_id: str, now: datetime, until: datetime) -> int | None:
    """How often it was claimed since the last look; None while it is another's."""
    found: int | None = await db.fetchval(
        QUERIES["claim_stripe_look"], stripe_invoice_id, now, until
    )
    return found


async def failed(db: Executor, stripe_invoice_id: str, again_at: datetime, error: str) -> None:
    """Stripe did not say; `error` is a code, never a message."""
    await db.execute(QUERIES["stripe_look_failed"], stripe_invoice_id, again_at, error)


async def looked(
    db: Executor,
    stripe_invoice_id: str,
    now: datetime,
    poll_at: datetime,
    step_at: datetime | None,
) -> None:
    """It is open, and will be looked at again; by the service's time at `step_at`."""
    await db.execute(QUERIES["stripe_looked"], stripe_invoice_id, now, poll_at, step_at)


async def forget(db: Executor, stripe_invoice_id: str) -> None:
    """It is settled, or not ours."""
    await db.execute(QUERIES["forget_stripe_look"], stripe_invoice_id)
