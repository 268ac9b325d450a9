"""What a quota is built from: subscriptions and running totals."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.domain.period import Interval
from ledger.domain.plan import Entitlement, Scope
from ledger.domain.subscription import SubscriptionStatus
from ledger.store.catalogue import entitlements
from ledger.store.queries import QUERIES


class Subscription(msgspec.Struct, frozen=True):
    subscription_id: UUID
    user_id: UUID
    organization_id: UUID | None
    scope: Scope
    plan_tier: str
    plan_version: int
    version: int
    status: SubscriptionStatus
    anchor: date
    timezone: str
    trial_end: datetime | None
    cancel_at: datetime | None
    pending_change: Any
    created_at: datetime
    updated_at: datetime
    interval: Interval
    entitlements: tuple[Entitlement, ...]


async def live_subscriptions(
    db: Executor, user_id: UUID | None, organization_id: UUID | None
) -> list[Subscription]:
    rows = await db.fetch(QUERIES["live_subscriptions"], user_id, organization_id)
    return [
        Subscription(**{**dict(row), "entitlements": entitlements.decode(row["entitlements"])})
        for row in rows
    ]


async def organization_of_user(db: Executor, user_id: UUID) -> UUID | None:
    found: UUID | None = await db.fetchval(QUERIES["organization_of_user"], user_id)
    return found


async def terms_versions(
    db: Executor, user_id: UUID | None, organization_id: UUID | None
) -> tuple[int, int]:
    """Of the user's own and of the organisation's subscription; each grows with every change."""
    row = await db.fetchrow(QUERIES["terms_versions"], user_id, organization_id)
    return row["own"], row["of_organization"]


async def note_organization_user(db: Executor, user_id: UUID, organization_id: UUID) -> None:
    """That a quota of this user in this organisation may be loaded from now on."""
    await db.execute(QUERIES["note_organization_user"], user_id, organization_id)


async def organizations_of_user(db: Executor, user_id: UUID) -> list[UUID]:
    """In which a quota of this user may ever have been loaded."""
    rows = await db.fetch(QUERIES["organizations_of_user"], user_id)
    return [row["organization_id"] for row in rows]


async def totals(db: Executor, subject: str, quota_period: datetime) -> dict[str, int]:
    """Units by usage type that count against a subject in the period."""
    rows = await db.fetch(QUERIES["totals"], subject, quota_period)
    return {row["usage_type"]: row["units"] for row in rows}
