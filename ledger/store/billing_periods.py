"""Which periods are over, and which of them are to be invoiced."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.domain.in_force import Stand
from ledger.domain.proration import Advance
from ledger.store.queries import QUERIES
from ledger.store.subscriptions import advance_of, json_of

Kind = Literal["opening", "period", "final"]
PeriodEnds = dict[date, list[datetime]]  # by billing period, of which a day may begin two


class BillingPeriod(msgspec.Struct, frozen=True):
    """What one invoice is about. A beginning and an end have no time of their own: their start is
    their end."""

    billing_period_id: UUID
    subscription_id: UUID
    kind: Kind
    period_start: datetime
    period_end: datetime
    billing_period: date
    advance: Advance | None
    lines_before: datetime


async def to_close(db: Executor, now: datetime, most: int) -> list[UUID]:
    """Subscriptions whose period is over."""
    rows = await db.fetch(QUERIES["subscriptions_to_close"], now, most)
    return [row["subscription_id"] for row in rows]


async def add(
    db: Executor,
    subscription_id: UUID,
    kind: Kind,
    start: datetime,
    end: datetime,
    billing_period: date,
    *,
    advance: Advance | None = None,
    lines_before: datetime,
    outbox_id: int | None = None,
    due_at: datetime,
    rolls_over: tuple[str, int] | tuple[None, None] = (None, None),
) -> None:
    """`rolls_over`: the plan version of which something may be left over for the next period."""
    await db.execute(
        QUERIES["insert_billing_period"],
        subscription_id, kind, start, end, billing_period, json_of(advance), lines_before,
        outbox_id, due_at, *rolls_over,
    )  # fmt: skip


async def due(db: Executor, now: datetime, most: int) -> list[tuple[UUID, UUID]]:
    """Billing periods that may be invoiced, with their subscriptions."""
    rows = await db.fetch(QUERIES["due_billing_periods"], now, most)
    return [(row["billing_period_id"], row["subscription_id"]) for row in rows]


async def hold(db: Executor, billing_period_id: UUID) -> BillingPeriod | None:
    """It, unless it has been invoiced or an earlier one has not. Only while holding the
    subscription."""
    row = await db.fetchrow(QUERIES["hold_billing_period"], billing_period_id)
    if row is None:
        return None
    found = {name: row[name] for name in BillingPeriod.__struct_fields__}
    found["advance"] = advance_of(row["advance"])
    return BillingPeriod(**found)


async def close(db: Executor, billing_period_id: UUID, now: datetime) -> None:
    await db.execute(QUERIES["close_billing_period"], billing_period_id, now)


async def is_awaited(db: Executor, subscription_id: UUID) -> bool:
    """Whether anything of the subscription is still to be invoiced."""
    return bool(await db.fetchval(QUERIES["is_awaited"], subscription_id))


async def stands(db: Executor, subscription_id: UUID) -> list[Stand]:
    """The subscription's history, oldest first."""
    return [Stand(**dict(row)) for row in await db.fetch(QUERIES["stands"], subscription_id)]


async def ends(db: Executor, subscription_id: UUID) -> PeriodEnds:
    """When each billing period that is over ended, in order."""
    rows = await db.fetch(QUERIES["period_ends"], subscription_id)
    return {row["billing_period"]: row["ends"] for row in rows}


async def take_time(db: Executor) -> None:
    """This transaction may think longer between its statements."""
    await db.execute(QUERIES["take_time"])
