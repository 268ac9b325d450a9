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
        running = None if after.status in ENDED else after.period(end)
        advance = await _fee_ahead(db, after, running)
        version = await store.subscriptions.update(
            db, stored.subscription_id, after, advance, running, now
        )
        if after != life:
            await store.subscriptions.note(
                db, stored.subscription_id, "fall_due", "ledger", now, end
            )
        is_last = running is None
        owed.append(
            await _over(db, stored, life, before, version, advance, now, grace, is_last=is_last)
        )
        life = after
    return owed


async def _fee_ahead(db: Executor, life: Subscription, period: Span | None) -> Advance | None:
    """What is charged in advance for the period that follows; nothing for a pause or a trial."""
    if period is None or life.status not in PAID_AHEAD or is_trial(life.trial_end, period):
        return None
    found = await store.plan(db, life.plan_tier, life.plan_version)
    assert found is not None, "a subscription is on a plan version that exists"
    return base_fee(found[1], life.plan_version, period)


async def end(db: Executor, stored: Stored, version: int, now: datetime, grace: timedelta) -> int:
    """Sets down what is to be invoiced of a subscription that ends now, within its period; the
    close that is owed."""
    assert stored.running is not None
    cut = Span(stored.running.start, now)
    return await _over(db, stored, stored.life, cut, version, None, now, grace, is_last=True)


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
    is_last: bool,
) -> int:
    """Sets down that `period` is to be invoiced once its close is drained, with the base fee of the
    next in `advance`; the close that is owed. `life`: as it was in the period."""
    owed = await owe(db, NewTerms.of(stored, version, closes=period.end))
    billing_period = _local(life, period.start)
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
        rolls_over=(None, None) if is_last else (life.plan_tier, life.plan_version),
    )
    if is_last:
        await _final(
            db, stored.subscription_id, period.end, billing_period, now, period.end + LATEST
        )
    return owed


async def _final(
    db: Executor,
    subscription_id: UUID,
    at: datetime,
    billing_period: date,
    now: datetime,
    due_at: datetime,
) -> None:
    """Sets down an invoice of what comes after the last one, with the lines there are by now."""
    await store.billing_periods.add(
        db,
        subscription_id,
        "final",
        at,
        at,
        billing_period,
        lines_before=now + timedelta(microseconds=1),
        due_at=due_at,
    )


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
        return await owe(db, NewTerms.of(stored, version))


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
    await _final(db, subscription_id, now, _local(stored.life, now), now, due_at=now)


def _local(life: Subscription, instant: datetime) -> date:
    return instant.astimezone(zone(life.timezone)).date()
