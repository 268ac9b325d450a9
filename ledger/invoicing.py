"""What an invoice says: gathers what `ledger.domain.invoice` needs, from one snapshot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal

import msgspec

from ledger import store
from ledger.db import Executor
from ledger.domain.in_force import PlanVersion, Stand, in_force, stand_of
from ledger.domain.invoice import Draft, Late, PlanInForce, Used, draft
from ledger.domain.line import Line
from ledger.domain.period import Period, Span, midnight, period_at, zone
from ledger.domain.plan import Plan, UnitPolicy
from ledger.domain.proration import Advance
from ledger.domain.subscription import is_trial
from ledger.domain.unit_policy import GROUPING, Measured, billable
from ledger.rollover import LATEST
from ledger.store.billing_periods import BillingPeriod
from ledger.store.invoices import Payer, ToBill
from ledger.store.subscriptions import Subscription

# A record may say that its work was done a little after it was recorded.
EARLIEST = timedelta(minutes=6)


class Drafted(msgspec.Struct, frozen=True):
    """A draft, and the usage that it bills: with the billable quantity so far."""

    draft: Draft
    billed: tuple[tuple[ToBill, Decimal], ...]

    def behind(self, line: Line) -> ToBill | None:
        """The usage that a line is about."""
        for one, _ in self.billed:
            same = (one.plan_tier, one.plan_version, one.usage_type)
            if (line.plan_tier, line.plan_version, line.usage_type) == same and (
                line.span is not None
                and line.kind in ("usage", "adjustment")
                and isinstance(line.span, Period)
                and line.span.billing_date == one.billing_period
            ):
                return one
        return None


async def by_record(
    db: Executor,
    payer: Payer,
    used: Sequence[ToBill],
    policy: UnitPolicy,
    period: Span,
    timezone: str,
) -> Decimal:
    """Billable quantity of what was used of one type in a period, under a policy that looks at
    records or days."""
    tz = zone(timezone)
    found = [
        record
        for one in used
        for record in await store.invoices.records(
            db, payer, one, period.start - EARLIEST, period.end + LATEST
        )
    ]
    days = {record.usage_id: record.occurred_at for record in found}
    measured = [
        Measured(
            user=str(record.user_id),
            # A correction belongs to the day and service of what it corrects.
            day=days.get(record.reversal_of or record.usage_id, record.occurred_at)
            .astimezone(tz)
            .date(),
            record=str(record.reversal_of or record.usage_id),
            quantity=record.quantity,
        )
        for record in found
    ]
    return sum((share.quantity for share in billable(policy, measured)), Decimal(0))


class Invoicing:
    """One subscription as the ledger has it at one instant."""

    def __init__(self, db: Executor, stored: Subscription) -> None:
        self._db = db
        self._stored = stored
        self._plans: dict[PlanVersion, Plan] = {}
        self._stands: Sequence[Stand] = ()
        self._ends: store.billing_periods.PeriodEnds = {}
        self._billing_period: date | None = None
        self._ended: datetime | None = None

    async def draft(
        self,
        billing_period: date | None,
        ended: datetime | None,
        prorations: Sequence[Line],
        advance: Advance | None,
        before: date | None,
    ) -> Drafted:
        """The invoice of a period that `ended` (None: that runs; or of none), with what came late
        for others, but for those that begin on the day `before` or later."""
        self._billing_period, self._ended = billing_period, ended
        await self._look_back()
        used: dict[PlanVersion, dict[str, Decimal]] = defaultdict(dict)
        late: list[Late] = []
        billed: list[tuple[ToBill, Decimal]] = []
        voided = await store.billable.voided(self._db, self._stored.subscription_id)
        for one in await store.invoices.to_bill(self._db, self._stored.subscription_id, before):
            if one.is_billed:
                continue
            version = one.plan_tier, one.plan_version
            terms = await self._terms(one.billing_period, version)
            quantity = await self._billable(one, terms)
            billed.append((one, quantity))
            before_this = one.billed or Decimal(0)
            if self._is_its_own(one, quantity):
                used[version][one.usage_type] = quantity - before_this
            else:
                of = voided.get((terms.period.start, *version, one.usage_type))
                late.append(Late(terms, one.usage_type, before_this, quantity, of))
        of_period = await self._used(billing_period, used) if billing_period else []
        plan = await self._plan((self._stored.plan_tier, self._stored.plan_version))
        made = draft(
            plan.currency,
            of_period,
            prorations=prorations,
            late=late,
            advance=advance,
            credit=self._stored.credit,
        )
        return Drafted(made, tuple(billed))

    async def span(self, billing_period: date) -> Span:
        """When usage of a billing period was: until it ended, if it was cut short."""
        await self._look_back()
        period = await self._period(billing_period)
        running = self._stored.running
        if running is not None and _day_of(self._stored, running.start) == billing_period:
            return Span(period.start, running.end)
        ended = self._ends.get(billing_period, [period.end])[-1]
        return Span(period.start, min(period.end, ended))

    async def _look_back(self) -> None:
        self._stands = await store.billing_periods.stands(self._db, self._stored.subscription_id)
        self._ends = await store.billing_periods.ends(self._db, self._stored.subscription_id)

    async def _used(
        self, billing_period: date, used: dict[PlanVersion, dict[str, Decimal]]
    ) -> list[Used]:
        """By plan version in the order they came into force; those without usage have minimums."""
        period = await self._period(billing_period)
        versions = list(self._in_force(period))
        versions += [one for one in used if one not in versions]
        return [Used(await self._terms(billing_period, one), used.get(one, {})) for one in versions]

    async def _terms(self, billing_period: date, version: PlanVersion) -> PlanInForce:
        period = await self._period(billing_period)
        return PlanInForce(
            await self._plan(version),
            version[1],
            period,
            self._in_force(period).get(version, ()),
            is_trial(self._stand(billing_period).trial_end, period),
        )

    async def _billable(self, one: ToBill, terms: PlanInForce) -> Decimal:
        if terms.trial:
            return Decimal(0)  # on no line: nothing of it may count as invoiced
        price = terms.price(one.usage_type)
        policy = price.units if price else None
        if policy is None or GROUPING[policy.policy] == "none":
            return one.measured
        payer = store.invoices.payer_of(self._stored)
        return await by_record(self._db, payer, [one], policy, terms.period, self._stored.timezone)

    def _is_its_own(self, one: ToBill, quantity: Decimal) -> bool:
        """Whether it is usage of the period that is invoiced, not what came late for it. What the
        first of two periods of a day was not billed for is the second's. (Where records cancel each
        other out that is nothing, and only an adjustment has a line over nothing.)"""
        if one.billing_period != self._billing_period:
            return False
        if one.billed is None:
            return True
        return quantity > one.billed and self._began_again(one.billing_period) is not None

    def _in_force(self, period: Period) -> dict[PlanVersion, tuple[Span, ...]]:
        """Up to where the period ended: one that was cut short may have begun again since, on its
        first day too."""
        start, end = period.start, period.end
        if period.billing_date == self._billing_period:
            start = self._began_again(period.billing_date) or start
            end = min(end, self._ended or end)
        elif ends := self._ends.get(period.billing_date):
            end = min(end, ends[-1])
        return in_force(self._stands, Span(start, end))

    def _began_again(self, billing_period: date) -> datetime | None:
        """When an earlier period of the day on which the invoiced one began had ended."""
        ends = self._ends.get(billing_period, [])
        earlier = [one for one in ends if self._ended is None or one < self._ended]
        return earlier[-1] if earlier else None

    def _stand(self, billing_period: date) -> Stand:
        return stand_of(self._stands, billing_period, self._stored.timezone)

    async def _period(self, billing_period: date) -> Period:
        """The one that begins on that day as the subscription stood then, or later: what is told
        of late is in the periods of when it is told, which may begin on other days than before."""
        then = self._stand(billing_period)
        found = []
        for stand in (then, *(one for one in self._stands if one.since > then.since)):
            plan = await self._plan((stand.plan_tier, stand.plan_version))
            start = midnight(billing_period, zone(stand.timezone))
            found.append(period_at(start, stand.anchor, plan.interval, stand.timezone))
            if found[-1].billing_date == billing_period:
                return found[-1]
        return found[0]

    async def _plan(self, version: PlanVersion) -> Plan:
        if version not in self._plans:
            found = await store.plan(self._db, *version)
            assert found is not None, "usage was admitted under a plan version that exists"
            self._plans[version] = found[1]
        return self._plans[version]


async def draft_of(db: Executor, stored: Subscription, period: BillingPeriod) -> Drafted:
    """The invoice of a billing period; takes over the pending lines of the time before it ended."""
    lines = await store.invoices.take_lines(db, stored.subscription_id, period.lines_before)
    of = period.billing_period if period.kind == "period" else None
    before = _open_from(stored, period)
    return await Invoicing(db, stored).draft(of, period.period_end, lines, period.advance, before)


def _open_from(stored: Subscription, period: BillingPeriod) -> date | None:
    """The first day whose usage another invoice will bill: while this one waited for its close and
    its grace, the period that follows has begun to be used."""
    if period.kind == "period":
        return period.billing_period + timedelta(days=1)
    if period.kind == "opening":
        return period.billing_period
    if stored.period_start is None:
        return None
    return _day_of(stored, stored.period_start)


def _day_of(stored: Subscription, instant: datetime) -> date:
    return instant.astimezone(zone(stored.timezone)).date()


async def upcoming(db: Executor, stored: Subscription) -> Drafted:
    """What the invoice of the running period would say if it ended now, without a further base
    fee. Changes nothing."""
    assert stored.running is not None, "the caller has seen that a period runs"
    day = _day_of(stored, stored.running.start)
    lines = await store.invoices.pending_lines(db, stored.subscription_id)
    return await Invoicing(db, stored).draft(day, None, lines, None, day + timedelta(days=1))
