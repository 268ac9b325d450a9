"""How delivery to Stripe is going, of all its calls together."""

from __future__ import annotations

from datetime import datetime

import msgspec

from ledger.db import Executor
from ledger.store.queries import QUERIES


class StripeState(msgspec.Struct, frozen=True):
    """`waiting`: invoices and events that are not in Stripe yet as they are here, the oldest for so
    long; `parked`: calls that wait for a person; `is_stopped`: Stripe refuses the API key."""

    waiting: int
    oldest_s: int
    parked: int
    is_stopped: bool


async def look(db: Executor) -> StripeState:
    return StripeState(**dict(await db.fetchrow(QUERIES["stripe_state"])))


async def outcomes(db: Executor) -> dict[str, int]:
    """How often tries have ended so, ever."""
    return {row["outcome"]: row["calls"] for row in await db.fetch(QUERIES["stripe_outcomes"])}


async def count(db: Executor, outcome: str) -> None:
    await db.execute(QUERIES["count_stripe_outcome"], outcome)


async def stopped_until(db: Executor) -> datetime | None:
    """None while the API key is not refused."""
    found: datetime | None = await db.fetchval(QUERIES["stripe_stopped_until"])
    return found


async def stop(db: Executor, now: datetime, until: datetime) -> bool:
    """Nothing is sent before then. Whether it went on until now."""
    return bool(await db.fetchval(QUERIES["stop_stripe"], now, until))


async def resume_unless_refused(db: Executor) -> bool:
    """Whether it was stopped, and no call waits that was refused for the key."""
    return await db.fetchval(QUERIES["resume_stripe_unless_refused"]) is not None


async def resume(db: Executor) -> bool:
    """Whether it was stopped."""
    return await db.fetchval(QUERIES["resume_stripe"]) is not None
