"""Reading subscriptions. A user without one is on the default tier by calendar month."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from gateway.accounts import Accounts
from gateway.auth import Action, Principal, Reach
from gateway.known import knowing
from gateway.messages import PeriodAnswer, SubscriptionAnswer, SubscriptionQuery, encoder
from gateway.problems import Kind, Problem, unavailable
from ledger import clock, db, store
from ledger.domain.period import Period, calendar_month, period_at


class Subscriptions:
    """The subscription routes, free of HTTP."""

    def __init__(self, accounts: Accounts, pool: db.Pool, default_tier: str) -> None:
        self._accounts = accounts
        self._pool = pool
        self._default_tier = default_tier

    async def read(self, principal: Principal, user: str, query: SubscriptionQuery) -> bytes:
        """`GET /subscription/{user_id}`: the live one, or the implicit default."""
        reach = principal.reach(Action.READ_SUBSCRIPTION)
        user_id = self._accounts.identify(user, "user_id")
        organization = self._accounts.optional(query.organization_id, Kind.INVALID_REQUEST)
        account = await knowing(
            lambda: self._accounts.to_read(
                principal, Action.READ_SUBSCRIPTION, user_id, organization
            )
        )
        if query.scope == "organization" and account.organization_id is None:
            raise Problem(Kind.INVALID_REQUEST, "organization_id is needed")
        try:
            answer = await self._answer(reach, user_id, account.organization_id, query)
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        return encoder.encode(answer)

    async def _answer(
        self, reach: Reach, user_id: UUID, organization_id: UUID | None, query: SubscriptionQuery
    ) -> SubscriptionAnswer:
        now = clock.now()
        found = await store.live_subscriptions(self._pool, user_id, organization_id)
        if reach is not Reach.ALL and any(
            one.scope == "user" and one.organization_id != organization_id for one in found
        ):
            raise Problem(Kind.NOT_FOUND, "there is no such user")
        for one in found:
            if one.scope == query.scope:
                return _stored(one, period_at(now, one.anchor, one.interval, one.timezone))
        if query.scope == "organization":
            raise Problem(Kind.NOT_FOUND, "this organization has no subscription")
        return await self._implicit(user_id, organization_id, now)

    async def _implicit(
        self, user_id: UUID, organization_id: UUID | None, now: datetime
    ) -> SubscriptionAnswer:
        plan = await store.newest_plan(self._pool, self._default_tier)
        if plan is None:
            raise Problem(Kind.INTERNAL, "BILLING_TIER_DEFAULT is not in the catalogue")
        return SubscriptionAnswer(
            subscription_id=None,
            user_id=user_id,
            organization_id=organization_id,
            scope="user",
            plan_tier=plan.plan_tier,
            plan_version=plan.version,
            status="active",
            current_period=_period(calendar_month(now)),
            trial_end=None,
            cancel_at=None,
            pending_change=None,
            created_at=None,
            updated_at=None,
        )


def _stored(one: store.Subscription, period: Period) -> SubscriptionAnswer:
    return SubscriptionAnswer(
        subscription_id=one.subscription_id,
        user_id=one.user_id,
        organization_id=one.organization_id,
        scope=one.scope,
        plan_tier=one.plan_tier,
        plan_version=one.plan_version,
        status=one.status,
        current_period=_period(period),
        trial_end=one.trial_end,
        cancel_at=one.cancel_at,
        pending_change=one.pending_change,
        created_at=one.created_at,
        updated_at=one.updated_at,
    )


def _period(period: Period) -> PeriodAnswer:
    return PeriodAnswer(start=period.start, end=period.end)
