"""What a year of a subscription costs, worked out a second time: fractions instead of decimals,
definitions instead of steps, and nothing of the product."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

PLACES = {"USD": 2, "JPY": 0, "KWD": 3}
SCALES = {"calls": 0, "minutes": 2, "tokens": 0}
Stretch = tuple[datetime, datetime, int]  # from, to, plan


class Charged(NamedTuple):
    """A line, without its words."""

    kind: str
    usage_type: str
    plan: str
    quantity: Fraction
    amount: Fraction


class Bill(NamedTuple):
    lines: list[Charged]
    total: Fraction
    carried: Fraction


def bills(story: dict[str, Any]) -> list[Bill]:
    return Oracle(story).bills()


class Oracle:
    """One subscription's year."""

    def __init__(self, story: dict[str, Any]) -> None:
        self.story = story
        self.bounds: list[datetime] = story["bounds"]
        self.unit = Fraction(1, 10 ** PLACES[story["currency"]])
        self.zone = ZoneInfo(story["timezone"])
        self.last = 11 if story["cancel_in"] is None else story["cancel_in"]
        days = timedelta(days=story["trial_days"])
        first_day = story["start"].astimezone(self.zone).date()
        self.trial_until = first_day + days if days else None
        self.stretches = self._stretches()
        self.records: defaultdict[Any, list[dict[str, Any]]] = defaultdict(list)
        for one in story["records"]:
            self.records[self.place(one["at"]), one["usage_type"]].append(one)

    def bills(self) -> list[Bill]:
        made, carried = [], Fraction(0)
        if not self.is_trial(0):
            made.append(self.bill([self.fee(0)], carried))
            carried = made[-1].carried
        for period in range(self.last + 1):
            made.append(self.bill(self.lines(period), carried))
            carried = made[-1].carried
        return made

    def bill(self, lines: list[Charged], carried: Fraction) -> Bill:
        due = sum((one.amount for one in lines), Fraction(0)) - carried
        if not any(one.amount for one in lines):
            return Bill(lines, Fraction(0), carried)
        if carried:
            lines = [*lines, Charged("credit", "", "", Fraction(0), -carried)]
        if due < 0:
            lines = [*lines, Charged("credit", "", "", Fraction(0), -due)]
        return Bill(lines, max(due, Fraction(0)), max(-due, Fraction(0)))

    def lines(self, period: int) -> list[Charged]:
        found = list(self.prorations(period))
        begins = period + 1
        if begins <= self.last and not self.is_trial(begins) and not self.is_paused(begins):
            found.append(self.fee(begins))
        for number in {plan for _, _, plan in self.within(period)}:
            if not self.is_trial(period):
                found += self.rated(period, number, period)
        for earlier in range(max(0, period - 4), period):
            if not self.is_trial(earlier):
                found += self.adjusted(earlier, period)
        return found

    # Who is on which plan when.

    def _stretches(self) -> list[Stretch]:
        """The times of each plan, pauses left out."""
        switches = [(self.bounds[0], 0)]
        pending: int | None = None
        timeline = [(one["at"], one) for one in self.story["changes"]]
        timeline += [(bound, None) for bound in self.bounds[1:-1] if not self.in_trial(bound)]
        for at, change in sorted(timeline, key=lambda one: one[0]):
            if change is None:
                if pending is not None:
                    switches.append((at, pending))
                pending = None
            elif change["when"] == "now":
                switches.append((at, change["plan"]))
                pending = None
            else:
                pending = None if change["plan"] == switches[-1][1] else change["plan"]
        ends = [at for at, _ in switches[1:]] + [self.bounds[-1]]
        whole = [(at, end, plan) for (at, plan), end in zip(switches, ends, strict=True)]
        return [piece for one in whole for piece in self.without_pauses(one)]

    def without_pauses(self, stretch: Stretch) -> list[Stretch]:
        begin, end, plan = stretch
        for pause, resume in self.story["pauses"]:
            parts = [(begin, min(end, pause), plan), (max(begin, resume), end, plan)]
            return [one for one in parts if one[0] < one[1]]
        return [stretch] if begin < end else []

    def within(self, period: int) -> list[Stretch]:
        begin, end = self.bounds[period], self.bounds[period + 1]
        cut = [(max(begin, a), min(end, b), plan) for a, b, plan in self.stretches]
        return [one for one in cut if one[0] < one[1]]

    def place(self, at: datetime) -> tuple[int, int] | None:
        """The period and the plan of an instant; none while paused."""
        for period, (begin, end) in enumerate(pairwise(self.bounds)):
            if begin <= at < end:
                return next(((period, n) for a, b, n in self.within(period) if a <= at < b), None)
        return None

    def in_trial(self, instant: datetime) -> bool:
        local = instant.astimezone(self.zone).date()
        return self.trial_until is not None and local < self.trial_until

    def is_trial(self, period: int) -> bool:
        return self.in_trial(self.bounds[period])

    def is_paused(self, period: int) -> bool:
        return any(a <= self.bounds[period] < b for a, b in self.story["pauses"])

    # Base fees.

    def fee(self, period: int) -> Charged:
        plan = next(plan for a, _, plan in self.within(period) if a == self.bounds[period])
        return Charged("base_fee", "", f"plan{plan}", Fraction(0), self.base_fee(plan))

    def base_fee(self, plan: int) -> Fraction:
        return Fraction(self.story["plans"][plan]["base_fee"])

    def prorations(self, period: int) -> list[Charged]:
        if self.is_trial(period):
            return []
        begin, end = self.bounds[period], self.bounds[period + 1]
        found: list[Charged] = []
        paid: tuple[int, Fraction, datetime] | None = None
        for start, plan in self.starts(period):
            if start == begin:
                paid = (plan, self.base_fee(plan), begin)
                continue
            if paid is not None and paid[0] == plan:
                continue
            if paid is not None:
                back = self.last_share(paid[1], [paid[2], start, end])
                found.append(Charged("credit", "", f"plan{paid[0]}", Fraction(0), -back))
            amount = self.last_share(self.base_fee(plan), [begin, start, end])
            found.append(Charged("proration", "", f"plan{plan}", Fraction(0), amount))
            paid = (plan, amount, start)
        return [one for one in found if one.amount]

    def starts(self, period: int) -> list[tuple[datetime, int]]:
        return [(a, plan) for a, _, plan in self.within(period)]

    def last_share(self, amount: Fraction, instants: list[datetime]) -> Fraction:
        lengths = [(b - a) // timedelta(microseconds=1) for a, b in pairwise(instants)]
        return self.shares(amount, lengths)[-1]

    def shares(self, amount: Fraction, lengths: list[int]) -> list[Fraction]:
        exact = [amount * length / sum(lengths) / self.unit for length in lengths]
        whole = [floor(one) for one in exact]
        left = int(amount / self.unit) - sum(whole)
        winners = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))[:left]
        return [(n + (i in winners)) * self.unit for i, n in enumerate(whole)]

    # Usage.

    def rated(self, period: int, plan: int, seen: int) -> list[Charged]:
        found = []
        for usage_type in SCALES:
            usage, bound = self.cost(period, plan, usage_type, seen)
            quantity = self.billable(period, plan, usage_type, seen)
            if quantity:
                found.append(Charged("usage", usage_type, f"plan{plan}", quantity, usage))
            if bound:
                kind = "minimum" if bound > 0 else "maximum"
                found.append(Charged(kind, usage_type, f"plan{plan}", Fraction(0), bound))
        return found

    def adjusted(self, period: int, now: int) -> list[Charged]:
        found = []
        for plan in range(3):
            for usage_type in SCALES:
                was = self.billable(period, plan, usage_type, now - 1)
                quantity = self.billable(period, plan, usage_type, now) - was
                if quantity:
                    before = self.cost(period, plan, usage_type, now - 1)
                    after = self.cost(period, plan, usage_type, now)
                    amount = after[0] + after[1] - before[0] - before[1]
                    found.append(Charged("adjustment", usage_type, f"plan{plan}", quantity, amount))
        return found

    def price(self, plan: int, usage_type: str) -> dict[str, Any] | None:
        prices = self.story["plans"][plan]["prices"]
        return next((one for one in prices if one["usage_type"] == usage_type), None)

    def cost(self, period: int, plan: int, usage_type: str, seen: int) -> tuple[Fraction, Fraction]:
        """What the usage costs, and what a minimum adds or a maximum takes away."""
        price = self.price(plan, usage_type)
        if price is None:
            return Fraction(0), Fraction(0)
        quantity = self.billable(period, plan, usage_type, seen)
        beyond = max(quantity - Fraction(price.get("included", "0")), Fraction(0))
        usage = floor(modelled(price, beyond) / self.unit + Fraction(1, 2)) * self.unit
        low = self.minimum(price, period, plan)
        high = Fraction(price["maximum_amount"]) if "maximum_amount" in price else usage
        return usage, max(low, min(high, usage)) - usage

    def minimum(self, price: dict[str, Any], period: int, plan: int) -> Fraction:
        whole = self.bounds[period + 1] - self.bounds[period]
        times = [b - a for a, b, number in self.within(period) if number == plan]
        time = sum(times, timedelta())
        moment = timedelta(microseconds=1)
        lengths = [time // moment, (whole - time) // moment]
        return self.shares(Fraction(price.get("minimum_amount", "0")), lengths)[0]

    def billable(self, period: int, plan: int, usage_type: str, seen: int) -> Fraction:
        groups: defaultdict[Any, Fraction] = defaultdict(Fraction)
        price = self.price(plan, usage_type)
        units = (price or {}).get("units", {"policy": "exact"})
        for one in self.records[(period, plan), usage_type]:
            if one["seen"] <= seen:
                quantity = Fraction(one["units"], 10 ** SCALES[usage_type])
                groups[self.group(units["policy"], one)] += quantity
        return sum((earned(units, total) for total in groups.values()), Fraction(0))

    def group(self, policy: str, one: dict[str, Any]) -> Any:
        day = one["at"].astimezone(self.zone).date()
        if policy == "cms_8_minute":
            return one["user"], day
        if policy == "threshold":
            return one["user"], day.replace(day=1)
        return one["record"]


def earned(units: dict[str, str], total: Fraction) -> Fraction:
    size = Fraction(units.get("size", "1"))
    match units["policy"]:
        case "exact":
            return total
        case "ceil":
            return ceil(total / size) * size
        case "cms_8_minute":
            return Fraction(sum(1 for unit in range(1, 200) if total >= 15 * unit - 7))
        case "cpt_midpoint":
            return Fraction(sum(1 for unit in range(200) if total > size * unit + size / 2))
        case _:
            return Fraction(sum(1 for unit in range(1, 200) if total >= size * unit))


def modelled(price: dict[str, Any], beyond: Fraction) -> Fraction:
    """What a model charges for what is beyond the included."""
    if beyond == 0:
        return beyond
    unit_amount = Fraction(price.get("unit_amount", "0"))
    match price["model"]:
        case "per_unit":
            return beyond * unit_amount
        case "package":
            return ceil(beyond / Fraction(price["package_size"])) * unit_amount
        case "flat":
            return unit_amount
        case "volume":
            reached = next(
                one for one in price["tiers"] if one["up_to"] is None or beyond <= int(one["up_to"])
            )
            return beyond * Fraction(reached.get("unit_amount", "0")) + Fraction(
                reached.get("flat_amount", "0")
            )
    lower = [Fraction(0)] + [Fraction(one["up_to"]) for one in price["tiers"][:-1]]
    upper = [*lower[1:], beyond]
    return sum(
        (
            (min(beyond, high) - low) * Fraction(one.get("unit_amount", "0"))
            + Fraction(one.get("flat_amount", "0"))
            for one, low, high in zip(price["tiers"], lower, upper, strict=True)
            if beyond > low
        ),
        Fraction(0),
    )
