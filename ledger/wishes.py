"""What the rules make of a wish for a subscription: pure but for plans. It looks them up, and where
terms are agreed with one customer makes that customer's version of one."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from ledger import store
from ledger.catalogue import own_version
from ledger.db import Executor
from ledger.domain import plan_change
from ledger.domain import subscription as life
from ledger.domain.line import Line
from ledger.domain.overrides import Overrides
from ledger.domain.period import Span
from ledger.domain.plan import Plan
from ledger.domain.plan_change import When
from ledger.domain.proration import Advance, base_fee, paid_line
from ledger.domain.subscription import Changed
from ledger.store.subscriptions import Subscription

Verb = Literal[
    "change", "migrate", "cancel", "uncancel", "pause", "resume", "reactivate",
    "payment_failed", "paid", "expire",
]  # fmt: skip


class Wish(msgspec.Struct, frozen=True):
    """What is to happen to a subscription. `when`: as the rules say, unless given. `plan_version`:
    the newest public one, unless given; with `overrides` as they are agreed with the customer."""

    verb: Verb
    plan_tier: str | None = None
    when: When | None = None
    plan_version: int | None = None
    overrides: Overrides | None = None


class NoPlan(Exception):
    """The catalogue has no plan of this tier."""


async def plan_of(db: Executor, tier: str, version: int | None = None) -> tuple[int, Plan]:
    """A version of a plan, the newest public one unless given, with its number. Raises `NoPlan`."""
    found = await store.plan(db, tier, version)
    if found is None:
        raise NoPlan
    return found


def running_after(found: Subscription, after: life.Subscription, now: datetime) -> Span | None:
    """The period that runs after a change: another one only after a beginning or a change of
    interval."""
    if after.status in life.ENDED:
        return None
    if found.status in life.ENDED or after.interval != found.interval:
        return after.period(now)
    return found.running


async def agreed(
    db: Executor,
    subscription_id: UUID,
    tier: str,
    overrides: Overrides | None,
    *,
    actor: str,
    now: datetime,
) -> tuple[int, Plan]:
    """The newest public version of a plan, or the subscription's own with `overrides`. Raises
    `NoPlan`, `ledger.domain.plan_problems.PlanError`."""
    public = await plan_of(db, tier)
    if overrides is None:
        return public
    return await own_version(db, subscription_id, public, overrides, actor=actor, now=now)


async def decided(
    db: Executor, found: Subscription, wish: Wish, actor: str, now: datetime
) -> tuple[Plan, Changed]:
    """What the rules make of a wish, and the plan whose currency its lines have."""
    mine = found.life
    _, plan = await plan_of(db, mine.plan_tier, mine.plan_version)
    paid = found.advance if found.advance and now in found.advance.span else None
    match wish.verb:
        case "change":
            assert wish.plan_tier is not None
            version, new = await agreed(
                db, found.subscription_id, wish.plan_tier, wish.overrides, actor=actor, now=now
            )
            when = wish.when or plan_change.default_when(plan, new)
            return plan, plan_change.change(mine, plan, new, version, when, now=now, paid=paid)
        case "migrate":
            assert wish.plan_tier is not None and wish.when is not None
            _may_migrate(found, wish.plan_tier, wish.plan_version)
            version, new = await plan_of(db, wish.plan_tier, wish.plan_version)
            return plan, plan_change.change(mine, plan, new, version, wish.when, now=now, paid=paid)
        case "cancel":
            ended = life.cancel_now if wish.when == "now" else life.cancel_at_period_end
            return plan, Changed(ended(mine, now))
        case "uncancel":
            return plan, Changed(life.uncancel(mine, now))
        case "pause":
            return plan, Changed(life.pause(mine, now))
        case "resume":
            return plan, life.resume(mine, plan, now=now, paid=paid)
        case "reactivate":
            again = life.reactivate(mine, now)
            advance = base_fee(plan, again.plan_version, again.period(now))
            return plan, Changed(again, fee(advance), advance)
        case "payment_failed":
            return plan, Changed(life.payment_failed(mine, now))
        case "paid":
            return plan, Changed(life.paid(mine, now))
        case "expire":
            return plan, Changed(life.expire(mine, now))


def _may_migrate(found: Subscription, tier: str, version: int | None) -> None:
    """Raises `NotAllowed` where somebody has decided otherwise for this one subscription."""
    pending = found.pending_change
    if found.plan_tier != tier:
        raise life.NotAllowed("the subscription is on another plan by now")
    if found.overridden:
        raise life.NotAllowed("the subscription has overrides")
    if pending is not None and (pending.plan_tier, pending.plan_version) == (tier, version):
        raise life.NotAllowed("this change is pending already")
    if pending is not None:
        raise life.NotAllowed("another change of the subscription is pending")


def fee(advance: Advance) -> tuple[Line, ...]:
    """The line of what is paid in advance; none where that is nothing."""
    line = paid_line("base_fee", advance, "base fee")
    return (line,) if line.amount else ()
