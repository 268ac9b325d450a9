"""Subscriptions, and how each became what it is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.domain.line import Line
from ledger.domain.period import Interval, Span
from ledger.domain.plan import Entitlement, Scope
from ledger.domain.proration import Advance
from ledger.domain.subscription import PendingChange, SubscriptionStatus
from ledger.domain.subscription import Subscription as Life
from ledger.store.catalogue import entitlements
from ledger.store.queries import QUERIES

_pending = msgspec.json.Decoder(PendingChange)
_advance = msgspec.json.Decoder(Advance)


class Subscription(msgspec.Struct, frozen=True):
    """A row of `subscriptions`, with what its plan version says of quotas."""

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
    pending_change: PendingChange | None
    advance: Advance | None
    period_start: datetime | None
    period_end: datetime | None
    credit: Decimal
    created_at: datetime
    updated_at: datetime
    interval: Interval
    entitlements: tuple[Entitlement, ...]
    own_versions: list[str]

    @property
    def overridden(self) -> bool:
        """Whether its terms are agreed with this customer alone."""
        return self.is_own(self.plan_tier, self.plan_version)

    def is_own(self, plan_tier: str, plan_version: int) -> bool:
        """Whether a plan version belongs to this subscription."""
        return f"{plan_tier} {plan_version}" in self.own_versions

    @property
    def running(self) -> Span | None:
        """The period that runs."""
        if self.period_start is None or self.period_end is None:
            return None
        return Span(self.period_start, self.period_end)

    @property
    def life(self) -> Life:
        """What the rules of its life are about."""
        return Life(
            status=self.status,
            plan_tier=self.plan_tier,
            plan_version=self.plan_version,
            interval=self.interval,
            anchor=self.anchor,
            timezone=self.timezone,
            trial_end=self.trial_end,
            cancel_at=self.cancel_at,
            pending_change=self.pending_change,
        )


class Change(msgspec.Struct, frozen=True):
    """A subscription as it stood after a change."""

    version: int
    action: str
    actor: str
    occurred_at: datetime
    effective_at: datetime
    status: SubscriptionStatus
    plan_tier: str
    plan_version: int
    trial_end: datetime | None
    cancel_at: datetime | None
    pending_change: PendingChange | None


async def live(
    db: Executor, user_id: UUID | None, organization_id: UUID | None
) -> list[Subscription]:
    """The user's own and the organisation's."""
    rows = await db.fetch(QUERIES["live_subscriptions"], user_id, organization_id)
    return [of_row(row) for row in rows]


async def hold(
    db: Executor, scope: Scope, user_id: UUID, organization_id: UUID | None
) -> Subscription | None:
    """The live one, else the newest that ended; its row is locked until the transaction ends."""
    row = await db.fetchrow(QUERIES["hold_subscription"], scope, user_id, organization_id)
    return None if row is None else of_row(row)


async def hold_by_id(db: Executor, subscription_id: UUID) -> Subscription | None:
    """The same by its id; None while somebody else works on it."""
    row = await db.fetchrow(QUERIES["hold_subscription_by_id"], subscription_id)
    return None if row is None else of_row(row)


async def by_id(db: Executor, subscription_id: UUID) -> Subscription:
    """It as it is now; not held. There always is one of what was used."""
    return of_row(await db.fetchrow(QUERIES["subscription_by_id"], subscription_id))


async def wait_for(db: Executor, subscription_id: UUID) -> None:
    """Until nobody else works on it, and holds it then."""
    await db.execute(QUERIES["wait_for_subscription"], subscription_id)


async def wait_at(db: Executor, scope: Scope, user_id: UUID, organization_id: UUID | None) -> None:
    """The same of those at an address."""
    await db.execute(QUERIES["wait_for_subscriptions"], scope, user_id, organization_id)


async def newest(
    db: Executor, scope: Scope, user_id: UUID, organization_id: UUID | None
) -> Subscription | None:
    """The one that changed last, ended or not."""
    row = await db.fetchrow(QUERIES["newest_subscription"], scope, user_id, organization_id)
    return None if row is None else of_row(row)


async def insert(
    db: Executor,
    subscription_id: UUID,
    scope: Scope,
    user_id: UUID,
    organization_id: UUID | None,
    life: Life,
    advance: Advance | None,
    period: Span,
    now: datetime,
) -> int:
    """Its version; `period` is the first that it runs for. Raises `ledger.db.UniqueViolation` where
    there is a live one already."""
    return int(
        await db.fetchval(
            QUERIES["insert_subscription"],
            subscription_id,
            user_id,
            organization_id,
            scope,
            life.plan_tier,
            life.plan_version,
            life.status,
            life.anchor,
            life.timezone,
            life.trial_end,
            json_of(advance),
            period.start,
            period.end,
            now,
        )
    )


async def update(
    db: Executor,
    subscription_id: UUID,
    life: Life,
    advance: Advance | None,
    period: Span | None,
    now: datetime,
) -> int:
    """Its next version; `period` is the one that runs, None when it has ended. Only while holding
    the row; raises `ledger.db.UniqueViolation` as `insert` does."""
    return int(
        await db.fetchval(
            QUERIES["update_subscription"],
            subscription_id,
            life.plan_tier,
            life.plan_version,
            life.status,
            life.anchor,
            life.trial_end,
            life.cancel_at,
            json_of(life.pending_change),
            json_of(advance),
            period and period.start,
            period and period.end,
            now,
        )
    )


async def renew(db: Executor, subscription_id: UUID) -> int:
    """Its next version, with nothing else changed. Only while holding the row."""
    return int(await db.fetchval(QUERIES["renew_subscription"], subscription_id))


async def note(
    db: Executor, subscription_id: UUID, action: str, actor: str, now: datetime, effective: datetime
) -> None:
    """The subscription as it stands, into its history."""
    await db.execute(QUERIES["insert_history"], subscription_id, action, actor, now, effective)


async def history(
    db: Executor, subscription_id: UUID, before: int | None, most: int
) -> list[Change]:
    """Newest first, older than version `before`."""
    rows = await db.fetch(QUERIES["subscription_history"], subscription_id, before, most)
    return [
        Change(**{**dict(row), "pending_change": _pending_of(row["pending_change"])})
        for row in rows
    ]


async def add_pending_line(db: Executor, subscription_id: UUID, line: Line, now: datetime) -> None:
    await db.execute(QUERIES["insert_pending_line"], subscription_id, json_of(line), now)


async def page(
    db: Executor,
    organization_id: UUID | None,
    status: SubscriptionStatus | None,
    before: tuple[datetime, UUID] | None,
    most: int,
) -> list[Subscription]:
    """Newest first, those made before an instant and id."""
    at, subscription_id = before or (None, None)
    rows = await db.fetch(
        QUERIES["list_subscriptions"], organization_id, status, at, subscription_id, most
    )
    return [of_row(row) for row in rows]


async def position(db: Executor, subscription_id: UUID) -> datetime | None:
    """When it was made; None when there is none."""
    found: datetime | None = await db.fetchval(QUERIES["subscription_position"], subscription_id)
    return found


def of_row(row: Mapping[str, Any]) -> Subscription:
    found = {name: row[name] for name in Subscription.__struct_fields__}
    found["entitlements"] = entitlements.decode(row["entitlements"])
    found["pending_change"] = _pending_of(row["pending_change"])
    found["advance"] = advance_of(row["advance"])
    return Subscription(**found)


def advance_of(raw: str | None) -> Advance | None:
    """What a JSON column says was charged in advance."""
    return _advance.decode(raw) if raw else None


def _pending_of(raw: str | None) -> PendingChange | None:
    return _pending.decode(raw) if raw else None


def json_of(value: Any) -> str | None:
    """How a value stands in a JSON column."""
    return None if value is None else msgspec.json.encode(value).decode()
