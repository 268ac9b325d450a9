"""Reading subscriptions. A user without one is on the default tier by calendar month."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from gateway.accounts import Accounts
from gateway.auth import Action, Principal, Reach
from gateway.known import knowing
from gateway.messages import encoder
from gateway.problems import Kind, Problem, unavailable
from gateway.subscription_answers import entry, period, shown
from gateway.subscription_changes import Now
from gateway.subscription_messages import (
    HistoryAnswer,
    HistoryQuery,
    SubscriptionAnswer,
    SubscriptionList,
    SubscriptionListQuery,
    SubscriptionQuery,
)
from ledger import db, store
from ledger.domain.period import calendar_month
from ledger.domain.subscription import ENDED
from ledger.store.subscriptions import Subscription
from lua.keys import Account


class Subscriptions:
    """The subscription routes, free of HTTP."""

    def __init__(self, accounts: Accounts, pool: db.Pool, default_tier: str, now: Now) -> None:
        self._accounts = accounts
        self._pool = pool
        self._default_tier = default_tier
        self._now = now

    async def read(
        self, principal: Principal, user: str, query: SubscriptionQuery
    ) -> tuple[bytes, dict[str, str]]:
        """`GET /subscription/{user_id}`: the live one, or the implicit default; with its ETag."""
        try:
            now = await self._now()
            account = await self._account(principal, user, query)
            found = await self._found(principal, account, query)
            answer = shown(found, now) if found else None
            if answer is None or answer.status in ENDED:
                if query.scope == "organization":
                    raise Problem(Kind.NOT_FOUND, "this organization has no subscription")
                answer = await self._implicit(account.user_id, account.organization_id, now)
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        headers = {"ETag": f'"{found.version}"'} if found and answer.subscription_id else {}
        return encoder.encode(answer), headers

    async def live(
        self, principal: Principal, user: str, query: SubscriptionQuery
    ) -> Subscription | None:
        """The live one that the caller means and may see."""
        account = await self._account(principal, user, query)
        return await self._found(principal, account, query)

    async def history(self, principal: Principal, user: str, query: HistoryQuery) -> bytes:
        """`GET /subscription/{user_id}/history`: newest first, of the live one, else of the
        newest that ended."""
        try:
            account = await self._account(principal, user, query)
            found = await self._found(principal, account, query, ended=True)
            if found is None:
                raise Problem(Kind.NOT_FOUND, "there is no such subscription")
            changes = await store.subscriptions.history(
                self._pool, found.subscription_id, query.starting_after, query.limit + 1
            )
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        data = [entry(one) for one in changes[: query.limit]]
        return encoder.encode(HistoryAnswer(data=data, has_more=len(changes) > query.limit))

    async def page(self, principal: Principal, query: SubscriptionListQuery) -> bytes:
        """`GET /subscriptions`: newest first, ended ones too."""
        reach = principal.reach(Action.READ_SUBSCRIPTION)
        organization = self._accounts.optional(query.organization_id, Kind.INVALID_REQUEST)
        if reach is not Reach.ALL:
            if reach is Reach.OWN or organization is None:
                raise Problem(Kind.FORBIDDEN, "your role does not allow this list")
            if not principal.acts_for(organization):
                raise Problem(Kind.NOT_FOUND, "there is no such organization", denied=True)
        try:
            before = None
            if query.starting_after is not None:
                at = await store.subscriptions.position(self._pool, query.starting_after)
                if at is None:
                    raise Problem(Kind.INVALID_REQUEST, "starting_after is no subscription")
                before = (at, query.starting_after)
            found = await store.subscriptions.page(
                self._pool, organization, query.status, before, query.limit + 1
            )
            now = await self._now()
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        data = [shown(one, now) for one in found[: query.limit]]
        return encoder.encode(SubscriptionList(data=data, has_more=len(found) > query.limit))

    async def _account(self, principal: Principal, user: str, query: SubscriptionQuery) -> Account:
        principal.reach(Action.READ_SUBSCRIPTION)
        user_id = self._accounts.identify(user, "user_id")
        organization = self._accounts.optional(query.organization_id, Kind.INVALID_REQUEST)
        account = await knowing(
            lambda: self._accounts.to_read(
                principal, Action.READ_SUBSCRIPTION, user_id, organization
            )
        )
        if query.scope == "organization" and account.organization_id is None:
            raise Problem(Kind.INVALID_REQUEST, "organization_id is needed")
        return account

    async def _found(
        self,
        principal: Principal,
        account: Account,
        query: SubscriptionQuery,
        *,
        ended: bool = False,
    ) -> Subscription | None:
        user_id, organization_id = account.user_id, account.organization_id
        found = await store.subscriptions.live(self._pool, user_id, organization_id)
        everything = principal.reach(Action.READ_SUBSCRIPTION) is Reach.ALL
        if not everything and any(
            one.scope == "user" and one.organization_id != organization_id for one in found
        ):
            raise Problem(Kind.NOT_FOUND, "there is no such user", denied=True)
        for one in found:
            if one.scope == query.scope:
                return one
        if not ended:
            return None
        last = await store.subscriptions.newest(self._pool, query.scope, user_id, organization_id)
        if last and not everything and last.organization_id != organization_id:
            raise Problem(Kind.NOT_FOUND, "there is no such user", denied=True)
        return last

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
            overridden=False,
            status="active",
            current_period=period(calendar_month(now)),
            trial_end=None,
            cancel_at=None,
            pending_change=None,
            created_at=None,
            updated_at=None,
        )
