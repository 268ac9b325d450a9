"""The base fees that a period comes to, from the subscription's history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ledger.domain.in_force import PlanVersion, Stand, stand_at
from ledger.domain.line import Line
from ledger.domain.period import Period, period_at
from ledger.domain.plan import Plan
from ledger.domain.proration import Advance, base_fee, paid_line, prorated_change
from ledger.domain.subscription import ENDED

_PAYING = frozenset({"active", "past_due"})


def fees(
    history: Sequence[Stand], period: Period, of: Stand, plans: Mapping[PlanVersion, Plan]
) -> list[Line]:
    """What was charged in advance for a period that is no trial: its base fee, and the lines of
    every change within it; an end gives nothing back. `of` is the stand whose period it is;
    `plans` has every version of the history."""
    before = stand_at(history, period.start)
    charged: Advance | None = None
    lines: list[Line] = []
    if before.status in _PAYING and _begins(before, period, of, plans):
        charged = _whole(before, period, plans)
        lines.append(paid_line("base_fee", charged, "base fee"))
    for stand in history:
        if not period.start < stand.since < period.end:
            continue
        if stand.status in _PAYING and before.status in ENDED:
            charged = _whole(stand, period, plans)
            lines.append(paid_line("base_fee", charged, "base fee"))
        elif stand.status in _PAYING and _is_new(stand, charged):
            currency = plans[stand.plan_tier, stand.plan_version].currency
            whole = _whole(stand, period, plans)
            changes, charged = prorated_change(charged, whole, stand.since, currency)
            lines += changes
        before = stand
    return [line for line in lines if line.amount]


def _begins(stand: Stand, period: Period, of: Stand, plans: Mapping[PlanVersion, Plan]) -> bool:
    """Whether a period of this stand begins with the period: one that began anew later on that day
    may have stood in the middle of another, which was charged before."""
    if stand.anchor == of.anchor:
        return True
    interval = plans[stand.plan_tier, stand.plan_version].interval
    return period_at(period.start, stand.anchor, interval, stand.timezone).start == period.start


def _whole(stand: Stand, period: Period, plans: Mapping[PlanVersion, Plan]) -> Advance:
    return base_fee(plans[stand.plan_tier, stand.plan_version], stand.plan_version, period)


def _is_new(stand: Stand, charged: Advance | None) -> bool:
    """A change of plan, or the end of a pause in which the period began."""
    if charged is None:
        return True
    return (charged.plan_tier, charged.plan_version) != (stand.plan_tier, stand.plan_version)
