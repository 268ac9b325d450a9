"""A subscription passes from one period to the next: what is over is set down to be invoiced."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from uuid import UUID

from ledger import store
from ledger.db import Connection, Executor
from ledger.domain.period import Span, zone
from ledger.domain.proration import Advance, base_fee
from ledger.domain.subscription import ENDED, Subscription, fall_due, is_trial
from ledger.store.subscriptions import Subscription as Stored
from ledger.supersede import NewTerms, owe

# `occurred_at` may lie so far back: until then usage may come that belongs to an ended period.
LATEST = timedelta(days=36)
PAID_AHEAD = frozenset({"active", "past_due"})


async def begin(db: Executor, stored: Stored, now: datetime) -> None:
    """Sets down the first invoice of a subscription that has just begun, of the lines it has."""
    assert stored.period_start is not None
    await store.billing_periods.add(
        db,
        stored.subscription_id,
        "opening",
        now,  # not the period's: a subscription can begin twice on one day
        now,
        _local(stored.life, stored.period_start),
        lines_before=now + timedelta(microseconds=1),
        due_at=now,
    )


async def roll(
    db: Executor, stored: Stored, now: datetime, grace: timedelta, *, most: int | None = None
) -> list[int]:
    """Ends every period that is over by `now`, or so many, one after the other, with all that falls
    due there; the closes that are owed to Redis. Only while holding the row, which has changed if
    any."""
    owed: list[int] = []
    running, life = stored.running, stored.life
    while running is not None and running.end <= now and len(owed) != most:
        before, end = running, running.end
        after = fall_due(life, end)
        advance: Advance | None = None
        running = None
        if after.status not in ENDED:
            running = after.period(end)
            if after.status in PAID_AHEAD and not is_trial(after.trial_end, running):
                found = await store.plan(db, after.plan_tier, after.plan_version)
                assert found is not None, "a subscription is on a plan version that exists"
                advance = base_fee(found[1], after.plan_version, running)
        version = await store.subscriptions.update(
            db, stored.subscription_id, after, advance, running, now
        )
        if after != life:
            await store.subscriptions.note(
                db, stored.subscription_id, "fall_due", "ledger", now, end
            )
        owed.append(await _over(db, stored, life, before, version, advance, now, grace))
        life = after
    return owed


async def end(db: Executor, stored: Stored, version: int, now: datetime, grace: timedelta) -> int:
    """Sets down what is to be invoiced of a subscription that ends now, within its period; the
    close that is owed."""
    assert stored.running is not None
    cut = Span(stored.running.start, now)
    return await _over(db, stored, stored.life, cut, version, None, now, grace, ended=True)


async def _over(
    db: Executor,
    stored: Stored,
    life: Subscription,
    period: Span,
    version: int,
    advance: Advance | None,
    now: datetime,
    grace: timedelta,
    *,
    ended: bool = False,
) -> int:
    change = NewTerms(
        stored.subscription_id,
        stored.scope,
        stored.user_id,
        stored.organization_id,
        version,
        closes=period.end,
    )
    owed = await owe(db, change)
    billing_period = _local(life, period.start)
    last = ended or fall_due(life, period.end).status in ENDED
    await store.billing_periods.add(
        db,
        stored.subscription_id,
        "period",
        period.start,
        period.end,
        billing_period,
        advance=advance,
        lines_before=period.end,
        outbox_id=owed,
        due_at=period.end + grace,
        rolls_over=(None, None) if last else (life.plan_tier, life.plan_version),
    )
    if last:
        await store.billing_periods.add(
            db,
            stored.subscription_id,
            "final",
            period.end,
            period.end,
            billing_period,
            lines_before=now + timedelta(microseconds=1),
            due_at=period.end + LATEST,
        )
    return owed


async def reload_quotas(
    db: Connection, billing_period_id: UUID, subscription_id: UUID
) -> int | None:
    """Has all quotas of a subscription loaded anew after one of its periods; what is then owed to
    Redis. None when that was seen to, or somebody else works on it."""
    async with db.transaction():
        stored = await store.subscriptions.hold_by_id(db, subscription_id)
        if stored is None or not await store.grants.stop_rolling(db, billing_period_id):
            return None
        version = await store.subscriptions.renew(db, subscription_id)
        return await owe(
            db,
            NewTerms(
                subscription_id, stored.scope, stored.user_id, stored.organization_id, version
            ),
        )


async def late_after_end(db: Executor, subscription_id: UUID, now: datetime) -> None:
    """Sets down a further invoice when usage of a subscription has been booked after its last one:
    a correction, or a dead letter that was retried. Anything that is still to be invoiced takes it
    along. In a transaction; takes the subscription's row."""
    await store.subscriptions.wait_for(db, subscription_id)  # whoever writes its last invoice now
    stored = await store.subscriptions.hold_by_id(db, subscription_id)
    if stored is None or stored.life.status not in ENDED:
        return
    if await store.billing_periods.is_awaited(db, subscription_id):
        return
    await store.billing_periods.add(
        db,
        subscription_id,
        "final",
        now,
        now,
        _local(stored.life, now),
        lines_before=now + timedelta(microseconds=1),
        due_at=now,
    )


def _local(life: Subscription, instant: datetime) -> date:
    return instant.astimezone(zone(life.timezone)).date()
