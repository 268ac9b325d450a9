"""A year of a made-up subscription as the product bills it: the domain's functions, called as the
ledger will call them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from ledger.domain.invoice import Draft, Late, PlanInForce, Used, draft
from ledger.domain.line import Line
from ledger.domain.period import Span
from ledger.domain.plan import Plan
from ledger.domain.plan_change import change_at_period_end, change_now
from ledger.domain.plan_problems import check
from ledger.domain.proration import Advance, base_fee
from ledger.domain.subscription import (
    NotAllowed,
    Subscription,
    cancel_at_period_end,
    create,
    fall_due,
    is_trial,
    pause,
    resume,
)
from ledger.domain.unit_policy import Measured, billable
from tests.billing.scenarios import MONTHS, TYPES

VERSION = 1
MOMENT = timedelta(microseconds=1)


def drafts(story: dict[str, Any]) -> list[Draft]:
    return list(Year(story).run())


class Year:
    """One subscription: its state, what it paid in advance, and what each period knows."""

    def __init__(self, story: dict[str, Any]) -> None:
        self.story = story
        self.plans = {one["tier"]: msgspec.convert(one, Plan) for one in story["plans"]}
        for plan in self.plans.values():
            check(plan, TYPES)
        self.paid: Advance | None = None
        self.lines: list[Line] = []
        self.in_force: defaultdict[str, list[Span]] = defaultdict(list)  # of this period
        self.terms: dict[tuple[int, str], PlanInForce] = {}  # of every period so far
        self.credit = Decimal(0)
        self.subscription: Subscription = create(
            self.plans["plan0"],
            VERSION,
            start=story["start"],
            now=story["start"],
            timezone=story["timezone"],
            trial_days=story["trial_days"],
        )

    def run(self) -> Iterator[Draft]:
        period = self.subscription.period(self.story["start"])
        if self.subscription.status == "active":
            self.paid = base_fee(self.plan, VERSION, period)
            yield self.invoice(advance=self.paid)
        for number in range(MONTHS):
            assert period == self.subscription.period(self.story["bounds"][number])
            since = period.start
            for at, event in self.events(period):
                self.note(since, at)
                self.act(at, event)
                since = at
            self.note(since, period.end)
            trial = is_trial(self.subscription.trial_end, period)
            for tier, spans in self.in_force.items():
                plan = self.plans[tier]
                self.terms[number, tier] = PlanInForce(plan, VERSION, period, tuple(spans), trial)
            if number == self.story["cancel_in"]:
                self.subscription = cancel_at_period_end(self.subscription, period.end - MOMENT)
            self.subscription = fall_due(self.subscription, period.end)
            following = self.subscription.period(period.end)
            assert following.start == period.end
            self.paid = None
            if self.subscription.status == "active" and number + 1 < MONTHS:
                self.paid = base_fee(self.plan, VERSION, following)
            yield self.invoice(number, advance=self.paid)
            if self.subscription.status == "canceled":
                return
            period = following

    @property
    def plan(self) -> Plan:
        return self.plans[self.subscription.plan_tier]

    def events(self, period: Span) -> list[tuple[datetime, dict[str, Any]]]:
        found = [(one["at"], one) for one in self.story["changes"]]
        for begin, end in self.story["pauses"]:
            found += [(begin, {"when": "pause"}), (end, {"when": "resume"})]
        return sorted((one for one in found if one[0] in period), key=lambda one: one[0])

    def note(self, since: datetime, until: datetime) -> None:
        """The plan was in force from one instant to the other, unless paused."""
        if self.subscription.status != "paused":
            self.in_force[self.subscription.plan_tier].append(Span(since, until))

    def act(self, at: datetime, event: dict[str, Any]) -> None:
        one = self.subscription
        match event["when"]:
            case "pause":
                self.subscription = pause(one, at)
                return
            case "resume":
                changed = resume(one, self.plan, now=at, paid=self.paid)
            case when:
                new = self.plans[f"plan{event['plan']}"]
                try:
                    if when == "period_end":
                        self.subscription = change_at_period_end(
                            one, self.plan, new, VERSION, now=at
                        )
                        return
                    changed = change_now(one, self.plan, new, VERSION, now=at, paid=self.paid)
                except NotAllowed:
                    assert (new.tier, one.pending_change) == (one.plan_tier, None)
                    return
        self.subscription = changed.subscription
        self.lines += changed.lines
        self.paid = changed.advance or self.paid

    def invoice(self, number: int = -1, *, advance: Advance | None) -> Draft:
        made = draft(
            self.story["currency"],
            [
                Used(terms, {name: self.quantity(terms, name, number) for name in TYPES})
                for (period, _), terms in self.terms.items()
                if period == number
            ],
            prorations=self.lines,
            late=self.late(number),
            advance=advance,
            credit=self.credit,
        )
        self.lines, self.credit = [], made.credit_carried
        self.in_force.clear()
        return made

    def late(self, number: int) -> list[Late]:
        """Of every earlier period: what it was billed at, and what it comes to now, where that
        differs. Records that change nothing have a line over nothing,
        which the oracle leaves out."""
        found = [
            Late(
                terms,
                name,
                billed=self.quantity(terms, name, number - 1),
                now=self.quantity(terms, name, number),
            )
            for (period, _), terms in self.terms.items()
            for name in TYPES
            if period < number
        ]
        return [one for one in found if one.billed != one.now]

    def quantity(self, terms: PlanInForce, usage_type: str, seen: int) -> Decimal:
        """Billable quantity under a plan version in a period, of what was seen by then."""
        price = terms.price(usage_type)
        measured = [
            Measured(
                one["user"],
                one["at"].astimezone(ZoneInfo(self.story["timezone"])).date(),
                one["record"],
                Decimal(one["units"]).scaleb(-TYPES[usage_type]),
            )
            for one in self.story["records"]
            if one["usage_type"] == usage_type
            and one["seen"] <= seen
            and any(one["at"] in span for span in terms.in_force)
        ]
        billed = billable(price.units if price else None, measured)
        return sum((one.quantity for one in billed), Decimal(0))
