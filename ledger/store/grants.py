"""What quotas have beyond their plan's limit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.domain.plan import Scope
from ledger.store.queries import QUERIES


class Leftover(msgspec.Struct, frozen=True):
    """What may be left over of the period that began at `before`: its limit, at most how much; None
    until it was `granted`. In units."""

    usage_type: str
    before: datetime
    limit: int
    most: int
    granted: int | None


async def leftovers(
    db: Executor, subscription_id: UUID, subject: str, quota_period: datetime, scope: Scope
) -> list[Leftover]:
    """Those that concern a subject's period; none before the last one's close is drained."""
    rows = await db.fetch(QUERIES["leftovers"], subscription_id, subject, quota_period, scope)
    return [Leftover(**dict(row)) for row in rows]


async def insert(
    db: Executor,
    subscription_id: UUID,
    subject: str,
    quota_period: datetime,
    units: Mapping[str, int],
    now: datetime,
) -> dict[str, Decimal]:
    """Grants units by usage type; the quantities of those that were not granted already."""
    rows = await db.fetch(
        QUERIES["insert_grants"],
        subject, quota_period, subscription_id, list(units), list(units.values()), now,
    )  # fmt: skip
    return {row["usage_type"]: row["quantity"] for row in rows}


async def rolling(db: Executor, most: int) -> list[tuple[UUID, UUID]]:
    """Billing periods of which something may be left over, now that their close is drained, with
    their subscriptions."""
    rows = await db.fetch(QUERIES["rolling_periods"], most)
    return [(row["billing_period_id"], row["subscription_id"]) for row in rows]


async def stop_rolling(db: Executor, billing_period_id: UUID) -> bool:
    """It is seen to; False when it was before."""
    return await db.fetchval(QUERIES["stop_rolling"], billing_period_id) is not None
