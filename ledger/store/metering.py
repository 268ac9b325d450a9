"""Usage that is counted by Stripe's meters: how much of it is in events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.settings import StripeMode
from ledger.store.queries import QUERIES


class ToMeter(msgspec.Struct, frozen=True):
    """What was used of a type in a billing period, and how much of it is in events; in units."""

    subscription_id: UUID
    billing_period: date
    usage_type: str
    used: int
    taken: int


async def switch(db: Executor, mode: StripeMode, now: datetime) -> bool:
    """False when it is so already."""
    return await db.fetchval(QUERIES["switch_stripe_mode"], mode, now) is not None


async def mode(db: Executor) -> str:
    """The one that a ledger was started with last."""
    return str(await db.fetchval(QUERIES["stripe_mode"]))


async def leave_invoiced(db: Executor) -> None:
    """Nothing that is on an invoice by now is for a meter."""
    await db.execute(QUERIES["leave_invoiced"])


async def hold(db: Executor) -> bool:
    """Whether meters count, and nobody else takes usage for them; until the transaction ends."""
    return bool(await db.fetchval(QUERIES["hold_metering"]))


async def subscriptions(db: Executor, after: UUID, most: int) -> list[UUID]:
    """The next ones by id, whether they used anything or not."""
    rows = await db.fetch(QUERIES["subscriptions_to_meter"], after, most)
    return [row["subscription_id"] for row in rows]


async def to_meter(
    db: Executor,
    subscriptions: Sequence[UUID],
    usage_types: Sequence[str],
    before: datetime,
    most: int,
) -> list[ToMeter]:
    """Their usage of these types that is in no event, but for what an event was made of since
    `before`; first where something is to be added."""
    rows = await db.fetch(QUERIES["to_meter"], list(usage_types), before, most, list(subscriptions))
    return [ToMeter(**dict(row)) for row in rows]


async def free_minute(
    db: Executor, payer_id: UUID, usage_type: str, first: datetime, latest: datetime
) -> datetime | None:
    """The last minute until `latest` that is no event's yet."""
    found: datetime | None = await db.fetchval(
        QUERIES["free_minute"], payer_id, usage_type, first, latest
    )
    return found


async def take(
    db: Executor, one: ToMeter, event_id: UUID, payer_id: UUID, minute: datetime, now: datetime
) -> None:
    """All that is used is in this event, or in an earlier one."""
    about = one.subscription_id, one.billing_period, one.usage_type
    await db.execute(QUERIES["take_metered"], *about, one.used, now)
    units = one.used - one.taken
    await db.execute(QUERIES["insert_meter_event"], event_id, *about, payer_id, units, minute, now)
