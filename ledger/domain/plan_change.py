"""A subscription changes its plan: now, with its base fee prorated, or when the period ends."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec.structs import replace

from ledger.domain.plan import Plan
from ledger.domain.proration import Advance, base_fee, prorated_change
from ledger.domain.subscription import (
    Changed,
    NotAllowed,
    PendingChange,
    Subscription,
    check,
    ends,
)

When = Literal["now", "period_end"]


def default_when(old: Plan, new: Plan) -> When:
    """An upgrade (a higher base fee) is wanted at once; anything else waits for what is paid."""
    if new.interval == old.interval and Decimal(new.base_fee) > Decimal(old.base_fee):
        return "now"
    return "period_end"


def change(
    subscription: Subscription,
    old: Plan,
    new: Plan,
    version: int,
    when: When,
    *,
    now: datetime,
    paid: Advance | None,
) -> Changed:
    """`change_now` or `change_at_period_end`."""
    if when == "now":
        return change_now(subscription, old, new, version, now=now, paid=paid)
    return Changed(change_at_period_end(subscription, old, new, version, now=now))


def change_now(
    subscription: Subscription,
    old: Plan,
    new: Plan,
    version: int,
    *,
    now: datetime,
    paid: Advance | None,
) -> Changed:
    """The new plan version at once: the period stays, the base fee is prorated. `paid` is what was
    last paid in advance for this period. A trial goes on and nothing is charged."""
    check(subscription, "change_now", now)
    if _is_on(subscription, old, new, version):
        return Changed(replace(subscription, pending_change=None))
    if subscription.status != "trialing" and new.interval != old.interval:
        raise NotAllowed(f"a plan by {new.interval} can only begin at the period's end")
    changed = replace(
        subscription,
        plan_tier=new.tier,
        plan_version=version,
        interval=new.interval,
        pending_change=None,
    )
    if subscription.status == "trialing":
        return Changed(changed)
    whole = base_fee(new, version, subscription.period(now))
    lines, advance = prorated_change(paid, whole, now, new.currency)
    return Changed(changed, tuple(lines), advance)


def change_at_period_end(
    subscription: Subscription, old: Plan, new: Plan, version: int, *, now: datetime
) -> Subscription:
    """The new plan version when the period (the trial) ends; replaces what was pending. Asking for
    the plan that is in force takes back what was pending."""
    check(subscription, "change_at_period_end", now)
    if _is_on(subscription, old, new, version):
        return replace(subscription, pending_change=None)
    at = ends(subscription, now)
    return replace(subscription, pending_change=PendingChange(new.tier, version, new.interval, at))


def _is_on(subscription: Subscription, old: Plan, new: Plan, version: int) -> bool:
    """Whether the change is to what is in force and only takes back what was pending. Raises
    `NotAllowed` for a change that cannot be made at any time."""
    if subscription.cancel_at is not None:
        raise NotAllowed("the subscription is to be cancelled; uncancel it first")
    if new.currency != old.currency:
        raise NotAllowed("a plan of another currency needs a new subscription")
    same = (new.tier, version) == (subscription.plan_tier, subscription.plan_version)
    if same and subscription.pending_change is None:
        raise NotAllowed("the subscription is on this plan already")
    return same
