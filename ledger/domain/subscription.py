"""The life of a subscription: what each action makes of it, and the money lines it causes.

```
(none) -- create --> trialing -- fall_due --> active -- payment_failed --> past_due
            |                                 ^ ^ | ^                       |  |
            +---------------------------------+ | | +-------- paid ---------+  expire
                                           resume pause                        v
                                                | v                         expired
                                               paused
```
Each of these four can be cancelled; canceled and expired can be reactivated. Plans change by
`ledger.domain.plan_change`.

A trial ends where periods begin: the anchor is the day it ends, and the days before it lie in
earlier periods of the same grid. A subscription's first day counts whole, paid or trial.

Base fees of whole periods are the invoice's (`ledger.domain.invoice`); the only lines made here are
those of changes within one. Cancelling gives nothing back: what was used is invoiced, what was paid
in advance runs on until the period's end, or is forgone by who wants to end it now.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Literal

import msgspec
from msgspec.structs import replace

from ledger.domain.line import Line
from ledger.domain.period import Interval, Period, Span, midnight, period_at, zone
from ledger.domain.plan import Plan
from ledger.domain.proration import Advance, base_fee, prorated_change

SubscriptionStatus = Literal["trialing", "active", "past_due", "paused", "canceled", "expired"]
Action = Literal[
    "change_now", "change_at_period_end", "cancel_now", "cancel_at_period_end", "uncancel", "pause",
    "resume", "reactivate", "expire", "payment_failed", "paid",
]  # fmt: skip

_LIVE = frozenset[SubscriptionStatus]({"trialing", "active", "past_due", "paused"})
# Every period since a subscription's start is invoiced: of a mistyped year there are hundreds.
LONG_AGO = timedelta(days=366)
ENDED = frozenset[SubscriptionStatus]({"canceled", "expired"})
ALLOWED: dict[Action, frozenset[SubscriptionStatus]] = {
    "change_now": frozenset({"trialing", "active"}),
    "change_at_period_end": frozenset({"trialing", "active", "past_due"}),
    "cancel_now": _LIVE,
    "cancel_at_period_end": _LIVE,
    "uncancel": _LIVE,
    "pause": frozenset({"active"}),
    "resume": frozenset({"paused"}),
    "reactivate": ENDED,
    "expire": frozenset({"past_due"}),
    "payment_failed": frozenset({"active"}),
    "paid": frozenset({"past_due"}),
}


class NotAllowed(ValueError):
    """The subscription's state does not allow it; the message says why."""


class PendingChange(msgspec.Struct, frozen=True):
    """The plan version that comes into force at an instant."""

    plan_tier: str
    plan_version: int
    interval: Interval
    at: datetime


class Subscription(msgspec.Struct, frozen=True):
    """What its life changes of a subscription. Instants are UTC."""

    status: SubscriptionStatus
    plan_tier: str
    plan_version: int
    interval: Interval
    anchor: date  # local; periods are counted from it
    timezone: str
    trial_end: datetime | None = None
    cancel_at: datetime | None = None
    pending_change: PendingChange | None = None

    def period(self, instant: datetime) -> Period:
        return period_at(instant, self.anchor, self.interval, self.timezone)


def is_trial(trial_end: datetime | None, period: Span) -> bool:
    """Whether the period is free: a trial ends where a period does."""
    return trial_end is not None and period.end <= trial_end


class Changed(msgspec.Struct, frozen=True):
    """The subscription after an action; lines for the next invoice; what is then paid in advance
    for the rest of the period, where that is new."""

    subscription: Subscription
    lines: tuple[Line, ...] = ()
    advance: Advance | None = None


def create(
    plan: Plan,
    version: int,
    *,
    start: datetime,
    now: datetime,
    timezone: str = "UTC",
    trial_days: int | None = None,
) -> Subscription:
    """A subscription whose first day is the local date of `start`; `trial_days` in place of the
    plan's. Raises `NotAllowed` for a start in the future or long ago."""
    if start > now:
        raise NotAllowed("a subscription cannot start in the future")
    if start < now - LONG_AGO:
        raise NotAllowed("a subscription cannot start more than a year ago")
    tz = zone(timezone)
    days = plan.trial_days if trial_days is None else trial_days
    anchor = start.astimezone(tz).date() + timedelta(days=days)
    trial_end = midnight(anchor, tz) if days else None
    trialing = trial_end is not None and trial_end > now
    return Subscription(
        status="trialing" if trialing else "active",
        plan_tier=plan.tier,
        plan_version=version,
        interval=plan.interval,
        anchor=anchor,
        timezone=timezone,
        trial_end=trial_end,
    )


def fall_due(subscription: Subscription, now: datetime) -> Subscription:
    """The subscription after all that was set for an instant up to now: it ends, its trial ends,
    its plan changes. Unchanged when nothing is due, so that running it twice does no harm."""
    if subscription.status not in _LIVE:
        return subscription
    if _is_due(subscription.cancel_at, now):
        return replace(subscription, status="canceled", pending_change=None)
    if subscription.status == "trialing" and _is_due(subscription.trial_end, now):
        subscription = replace(subscription, status="active")
    pending = subscription.pending_change
    if pending is None or not _is_due(pending.at, now):
        return subscription
    return replace(
        subscription,
        plan_tier=pending.plan_tier,
        plan_version=pending.plan_version,
        interval=pending.interval,
        anchor=_anchor_after(subscription, pending),
        pending_change=None,
    )


def check(subscription: Subscription, action: Action, now: datetime) -> None:
    """Raises `NotAllowed` when the state does not allow the action, ValueError when something is
    due: it decides first what there is to act on."""
    if fall_due(subscription, now) != subscription:
        raise ValueError("what is due comes first: run fall_due")
    if subscription.status not in ALLOWED[action]:
        raise NotAllowed(
            f"{action} is not possible while the subscription is {subscription.status}"
        )


def ends(subscription: Subscription, now: datetime) -> datetime:
    """When what is paid for (or free) ends."""
    if subscription.status == "trialing" and subscription.trial_end is not None:
        return subscription.trial_end
    return subscription.period(now).end


def cancel_now(subscription: Subscription, now: datetime) -> Subscription:
    """Ends at once; nothing is given back."""
    check(subscription, "cancel_now", now)
    return replace(subscription, status="canceled", cancel_at=now, pending_change=None)


def cancel_at_period_end(subscription: Subscription, now: datetime) -> Subscription:
    """Ends when the period (the trial) does; what was pending will not happen."""
    check(subscription, "cancel_at_period_end", now)
    if subscription.cancel_at is not None:
        raise NotAllowed("the subscription is to be cancelled already")
    return replace(subscription, cancel_at=ends(subscription, now), pending_change=None)


def uncancel(subscription: Subscription, now: datetime) -> Subscription:
    """Goes on after all. A change that cancelling took away does not come back."""
    check(subscription, "uncancel", now)
    if subscription.cancel_at is None:
        raise NotAllowed("the subscription is not to be cancelled")
    return replace(subscription, cancel_at=None)


def pause(subscription: Subscription, now: datetime) -> Subscription:
    """No usage and, from the next period on, no base fee. What is pending falls due still."""
    check(subscription, "pause", now)
    return replace(subscription, status="paused")


def resume(
    subscription: Subscription, plan: Plan, *, now: datetime, paid: Advance | None
) -> Changed:
    """Goes on with its plan version. In a period that began while it was paused (`paid` is None)
    the base fee of the rest is charged."""
    check(subscription, "resume", now)
    active = replace(subscription, status="active")
    if paid is not None:
        return Changed(active)
    whole = base_fee(plan, subscription.plan_version, subscription.period(now))
    lines, advance = prorated_change(None, whole, now, plan.currency)
    return Changed(active, tuple(lines), advance)


def reactivate(subscription: Subscription, now: datetime) -> Subscription:
    """Begins again today with its plan version: new periods, a new base fee, no trial."""
    check(subscription, "reactivate", now)
    return replace(
        subscription,
        status="active",
        anchor=now.astimezone(zone(subscription.timezone)).date(),
        trial_end=None,
        cancel_at=None,
        pending_change=None,
    )


def expire(subscription: Subscription, now: datetime) -> Subscription:
    """Ends because it was not paid in spite of every reminder."""
    check(subscription, "expire", now)
    return replace(subscription, status="expired", cancel_at=None, pending_change=None)


def payment_failed(subscription: Subscription, now: datetime) -> Subscription:
    """An invoice is owed."""
    check(subscription, "payment_failed", now)
    return replace(subscription, status="past_due")


def paid(subscription: Subscription, now: datetime) -> Subscription:
    """Nothing is owed any more."""
    check(subscription, "paid", now)
    return replace(subscription, status="active")


def _anchor_after(subscription: Subscription, pending: PendingChange) -> date:
    """Months to years: years are counted from the change. The other way, every year's boundary is
    a month's as well, and a 31st is not forgotten over a February."""
    if (subscription.interval, pending.interval) == ("month", "year"):
        return pending.at.astimezone(zone(subscription.timezone)).date()
    return subscription.anchor


def _is_due(instant: datetime | None, now: datetime) -> bool:
    return instant is not None and instant <= now
