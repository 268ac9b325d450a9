"""Everything that a quota is made of, read from the ledger as of one instant."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from ledger import store
from ledger.db import Connection
from ledger.domain.dunning import blocks
from ledger.domain.entitlement import Entitled, Rule, Source, entitled
from ledger.domain.period import Period
from ledger.domain.plan import Scope
from ledger.domain.subscription import ENDED, SubscriptionStatus, fall_due
from ledger.domain.usage import Terms
from lua import keys


class OrganizationMismatch(Exception):
    """The user's subscription belongs to another organisation than the request says."""


class NoDefaultTier(Exception):
    """BILLING_TIER_DEFAULT names a plan that is not in the catalogue."""


class Snapshot(msgspec.Struct, frozen=True):
    """The ledger at one instant, as far as one subject's quota depends on it."""

    cursor: store.Cursor
    version: int
    period: Period
    good_until: datetime  # when the terms may change without a new version, at most its end
    rules: list[Rule]
    totals: dict[str, int]
    terms: Terms
    blocked: str
    pool_version: int  # of the organisation's terms alone; 0 for a personal account
    ungranted: UUID | None  # the subscription of which something may be left over to be granted


async def snapshot(
    connection: Connection, partition: int, subject: bytes, now: datetime, default_tier: str
) -> Snapshot:
    """Everything a subject's quota depends on, as of one instant of the ledger. A pool depends on
    its organisation alone, whoever asks for it."""
    pool = keys.is_pool(subject)
    user_id, organization_id = keys.ids_of(subject)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        cursor = await store.cursor(connection, partition)
        default = await store.newest_plan(connection, default_tier)
        if default is None:
            raise NoDefaultTier
        rights = await _entitled(connection, user_id, organization_id, default, now)
        usage_types = await store.usage_types(connection)
        source = rights.pool if pool else rights.user
        assert source is not None, "a pool is an organisation's"
        period = source.period(now)
        leftovers = await _leftovers(connection, source, subject, period)
        granted = {one.usage_type: one.granted for one in leftovers if one.granted is not None}
        rules_of = rights.pool_rules if pool else rights.user_rules
        own, shared = await store.terms_versions(connection, user_id, organization_id)
        return Snapshot(
            cursor=cursor,
            # Each part only ever grows, so their sum does, and changes with any of them.
            version=own + shared + default.version,
            period=period,
            good_until=period.end if pool else rights.good_until(now),
            rules=rules_of(usage_types, granted),
            totals=await store.totals(connection, keys.subject_text(subject), period.start),
            terms=rights.payer.terms,
            blocked="" if pool else rights.blocked,
            pool_version=shared + default.version if organization_id else 0,
            ungranted=source.subscription_id if len(granted) < len(leftovers) else None,
        )


async def _leftovers(
    connection: Connection, source: Source, subject: bytes, period: Period
) -> list[store.grants.Leftover]:
    if source.subscription_id is None:
        return []  # nothing is closed of who has none
    return await store.grants.leftovers(
        connection,
        source.subscription_id,
        keys.subject_text(subject),
        period.start,
        scope_of(subject),
    )


async def _entitled(
    connection: Connection,
    user_id: UUID | None,
    organization_id: UUID | None,
    plan: store.PlanVersion,
    now: datetime,
) -> Entitled:
    own: Source | None = None
    organization: Source | None = None
    for subscription in await store.subscriptions.live(connection, user_id, organization_id):
        if subscription.scope == "organization":
            organization = await _source(connection, subscription, now)
        else:
            if subscription.organization_id not in (None, organization_id):
                raise OrganizationMismatch
            own = await _source(connection, subscription, now)
    default = Source(plan.plan_tier, plan.version, plan.interval, plan.entitlements)
    return entitled(own, organization, default, pooled=organization_id is not None)


async def _source(
    connection: Connection, subscription: store.subscriptions.Subscription, now: datetime
) -> Source | None:
    """The subscription as it is at `now`: what is due is in force whether or not anybody has
    noted it. None when it has ended."""
    life = fall_due(subscription.life, now)
    if life.status in ENDED:
        return None
    entitlements = subscription.entitlements
    if (life.plan_tier, life.plan_version) != (subscription.plan_tier, subscription.plan_version):
        found = await store.plan(connection, life.plan_tier, life.plan_version)
        assert found is not None, "a pending change names a plan version that exists"
        entitlements = found[1].entitlements
    return Source(
        plan_tier=life.plan_tier,
        plan_version=life.plan_version,
        interval=life.interval,
        entitlements=entitlements,
        subscription_id=subscription.subscription_id,
        anchor=life.anchor,
        timezone=life.timezone,
        blocked=await _blocked(connection, subscription.subscription_id, life.status),
    )


async def _blocked(
    connection: Connection, subscription_id: UUID, status: SubscriptionStatus
) -> str:
    """Why usage is refused; empty while it is not."""
    if status == "paused":
        return "paused"
    if status != "past_due":
        return ""
    return "past_due" if blocks(await store.payments.steps(connection, subscription_id)) else ""


def scope_of(subject: bytes) -> Scope:
    """Whose limits of a plan apply to a subject's quota."""
    return "organization" if keys.is_pool(subject) else "user"
