"""What past usage would have cost under a plan, beside what it comes to under the terms in force.

Both are rated from the same rows in the same way, as an invoice is, so that only the plan makes
the difference. A period belongs to the window in which it begins, with its usage as it is today,
whatever invoices said of it; its base fee is its own, not the next period's. Periods, trials,
pauses and ends stay as they were, and what a limit of the plan would have refused is priced.

A page of subscriptions at a time; records are read only where a price counts units of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from uuid import UUID

import msgspec
from msgspec.structs import replace

from ledger import store
from ledger.db import Executor
from ledger.domain.fees import fees
from ledger.domain.in_force import PlanVersion, Stand, in_force, stand_of
from ledger.domain.invoice import Late, PlanInForce, Used, draft
from ledger.domain.period import Period, Span, midnight, period_at, zone
from ledger.domain.plan import Plan, Scope
from ledger.domain.subscription import is_trial
from ledger.domain.unit_policy import GROUPING
from ledger.invoicing import by_record
from ledger.store.invoices import Payer, ToBill, payer_of
from ledger.store.subscriptions import Subscription

PAGE = 200  # subscriptions: some MB with a year of periods each
SIMULATED = 0  # the version of the plan that is tried: no real one has this number
_FIRST = UUID(int=0)

_period_at = lru_cache(10_000)(period_at)  # most subscriptions share their days with many
_ByVersion = Mapping[PlanVersion, Mapping[str, Sequence[ToBill]]]


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One subscription, or a user's months without one, in the window. `in_force` is in `currency`,
    `simulated` in that of the plan. `left_out`: periods of another length than the plan's."""

    subscription_id: UUID | None
    scope: Scope
    user_id: UUID
    organization_id: UUID | None
    currency: str
    periods: int
    left_out: int
    in_force: Decimal
    simulated: Decimal


class Simulation:
    """A plan without problems (`ledger.domain.plan_problems`) on the periods that began on the
    days `[since, until)`. Within one transaction of one snapshot."""

    def __init__(self, db: Executor, plan: Plan, since: date, until: date) -> None:
        self._db = db
        self._plan = plan
        self._window = since, until
        self._plans: dict[PlanVersion, Plan] = {(plan.tier, SIMULATED): plan}
        self.not_priced: set[str] = set()
        """Usage types that were used and that the plan has no price for."""

    async def subscriptions(
        self,
        user_id: UUID | None = None,
        organization_id: UUID | None = None,
        tier: str | None = None,
    ) -> AsyncIterator[Compared]:
        """Every subscription, or those that a user or an organisation pays for, ended ones too; or
        those that a new version of the plan `tier` could reach: live, on no terms of their own."""
        after = _FIRST
        while page := await store.simulation.payers(
            self._db, after, user_id, organization_id, tier, PAGE
        ):
            ids = [one.subscription_id for one in page]
            stands = await store.simulation.stands(self._db, ids)
            ends = await store.simulation.ends(self._db, ids, *self._window)
            used = await store.simulation.used(self._db, ids, *self._window)
            for one in page:
                of = one.subscription_id
                if one.running is not None:
                    day = one.running.start.astimezone(zone(one.timezone)).date()
                    if self._window[0] <= day < self._window[1]:
                        ends[of][day] = one.running.end
                history = stands[of] or [_stand(one)]
                yield await self._subscription(one, history, ends[of], _by_day(used[of]))
            after = page[-1].subscription_id

    async def without_subscription(self, user_id: UUID) -> Compared | None:
        """A user's calendar months on the default plan, which cost nothing; None without usage."""
        used = _by_day(
            await store.simulation.used_without_subscription(self._db, user_id, *self._window)
        )
        if not used:
            return None
        stand = Stand(
            since=midnight(min(used), zone("UTC")),
            status="active",
            plan_tier=self._plan.tier,
            plan_version=SIMULATED,
            anchor=min(used),
            timezone="UTC",
            trial_end=None,
        )
        months = used if self._plan.interval == "month" else {}
        simulated = Decimal(0)
        for day, of_day in months.items():
            period = _period_at(midnight(day, zone("UTC")), stand.anchor, "month", "UTC")
            rated = _Rated(Payer(None, user_id=user_id), [stand], stand, period, period.end)
            simulated += await self._subtotal(rated, self._as_simulated(of_day))
        return Compared(
            subscription_id=None,
            scope="user",
            user_id=user_id,
            organization_id=None,
            currency=self._plan.currency,
            periods=len(months),
            left_out=len(used) - len(months),
            in_force=Decimal(0),
            simulated=simulated,
        )

    async def _subscription(
        self,
        stored: Subscription,
        history: Sequence[Stand],
        ends: Mapping[date, datetime],
        used: Mapping[date, Sequence[ToBill]],
    ) -> Compared:
        simulated_history = [self._on_plan(one) for one in history]
        payer = payer_of(stored)
        await self._know((stored.plan_tier, stored.plan_version))
        for one in history:
            await self._know((one.plan_tier, one.plan_version))
        left_out, in_force_sum, simulated_sum = 0, Decimal(0), Decimal(0)
        days = ends.keys() | used.keys()
        for day in days:
            of = stand_of(history, day, stored.timezone)
            plan = self._plans[of.plan_tier, of.plan_version]
            if plan.interval != self._plan.interval:
                left_out += 1
                continue
            start = midnight(day, zone(stored.timezone))
            period = _period_at(start, of.anchor, plan.interval, of.timezone)
            rated = _Rated(payer, history, of, period, ends.get(day))
            of_day = used.get(day, ())
            in_force_sum += await self._subtotal(rated, _by_version(of_day))
            rated = replace(rated, history=simulated_history, of=self._on_plan(of))
            simulated_sum += await self._subtotal(rated, self._as_simulated(of_day))
        return Compared(
            subscription_id=stored.subscription_id,
            scope=stored.scope,
            user_id=stored.user_id,
            organization_id=stored.organization_id,
            currency=self._plans[stored.plan_tier, stored.plan_version].currency,
            periods=len(days) - left_out,
            left_out=left_out,
            in_force=in_force_sum,
            simulated=simulated_sum,
        )

    def _on_plan(self, stand: Stand) -> Stand:
        """As if it had been on the plan that is tried."""
        return replace(stand, plan_tier=self._plan.tier, plan_version=SIMULATED)

    def _as_simulated(self, used: Sequence[ToBill]) -> _ByVersion:
        """All of it under the plan, whatever version it was admitted under."""
        by_type: dict[str, list[ToBill]] = defaultdict(list)
        for one in used:
            by_type[one.usage_type].append(one)
        self.not_priced |= by_type.keys() - {price.usage_type for price in self._plan.prices}
        return {(self._plan.tier, SIMULATED): by_type} if by_type else {}

    async def _subtotal(self, rated: _Rated, used: _ByVersion) -> Decimal:
        """What a period's invoice would come to, without credit of other periods."""
        of_period = await self._used(rated, used)
        currency = self._plans[rated.of.plan_tier, rated.of.plan_version].currency
        if rated.end is None:  # before the subscription's first period: no more than what was used
            late = [
                Late(one.terms, usage_type, Decimal(0), quantity)
                for one in of_period
                for usage_type, quantity in one.quantities.items()
            ]
            return draft(currency, late=late).subtotal
        charged = []
        if not rated.is_trial:
            charged = fees(rated.history, rated.period, rated.of, self._plans)
        return draft(currency, of_period, prorations=charged).subtotal

    async def _used(self, rated: _Rated, used: _ByVersion) -> list[Used]:
        """By plan version, those that were in force in the period and those that were used."""
        end = rated.period.end if rated.end is None else min(rated.period.end, rated.end)
        spans = in_force(rated.history, Span(rated.period.start, end))
        found: list[Used] = []
        for version in [*spans, *(one for one in used if one not in spans)]:
            plan, times = await self._know(version), spans.get(version, ())
            terms = PlanInForce(plan, version[1], rated.period, times, rated.is_trial)
            quantities = {
                usage_type: await self._billable(rated, usage_type, of_type, terms)
                for usage_type, of_type in used.get(version, {}).items()
            }
            found.append(Used(terms, quantities))
        return found

    async def _billable(
        self, rated: _Rated, usage_type: str, used: Sequence[ToBill], terms: PlanInForce
    ) -> Decimal:
        price = None if terms.trial else terms.price(usage_type)
        policy = price.units if price else None
        if policy is None or GROUPING[policy.policy] == "none":
            return sum((one.measured for one in used), Decimal(0))
        return await by_record(self._db, rated.payer, used, policy, rated.period, rated.of.timezone)

    async def _know(self, version: PlanVersion) -> Plan:
        if version not in self._plans:
            found = await store.plan(self._db, *version)
            assert found is not None, "usage was admitted under a plan version that exists"
            self._plans[version] = found[1]
        return self._plans[version]


class _Rated(msgspec.Struct, frozen=True):
    """A period to be rated. `end`: where it ended; None when it was none of the subscription's."""

    payer: Payer
    history: Sequence[Stand]
    of: Stand
    period: Period
    end: datetime | None

    @property
    def is_trial(self) -> bool:
        return is_trial(self.of.trial_end, self.period)


def _stand(stored: Subscription) -> Stand:
    """Of one from before there was a history."""
    return Stand(
        stored.created_at,
        stored.status,
        stored.plan_tier,
        stored.plan_version,
        stored.anchor,
        stored.timezone,
        stored.trial_end,
    )


def _by_day(used: Sequence[ToBill]) -> dict[date, list[ToBill]]:
    found: dict[date, list[ToBill]] = defaultdict(list)
    for one in used:
        found[one.billing_period].append(one)
    return found


def _by_version(used: Sequence[ToBill]) -> _ByVersion:
    found: dict[PlanVersion, dict[str, list[ToBill]]] = defaultdict(dict)
    for one in used:
        found[one.plan_tier, one.plan_version][one.usage_type] = [one]
    return found
