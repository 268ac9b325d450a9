"""Changes of subscriptions: one transaction each, and then every quota that it concerns.

1. hold the row; periods that are over end first (`ledger.rollover`)
2. the rules decide (`ledger.domain.subscription`, `ledger.domain.plan_change`)
3. row, history, lines for the next invoice, audit event, outbox row; commit
4. send what is owed to Redis (`ledger.supersede`), so that the next request is on the new terms

A crash after 3 is finished by the ledger; nobody is answered before 4.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID, uuid4

import msgspec
import structlog

from ledger import store
from ledger.db import UNAVAILABLE, Executor, Pool, UniqueViolation
from ledger.domain import plan_change
from ledger.domain import subscription as life
from ledger.domain.line import Line
from ledger.domain.period import Span
from ledger.domain.plan import Plan, Scope
from ledger.domain.plan_change import When
from ledger.domain.proration import Advance, base_fee, paid_line
from ledger.domain.subscription import Changed
from ledger.rollover import begin, end, roll
from ledger.store.subscriptions import Subscription
from ledger.supersede import Superseded, Superseder, owe

log = structlog.get_logger()

Verb = Literal["change", "cancel", "uncancel", "pause", "resume", "reactivate"]


class Address(msgspec.Struct, frozen=True):
    """Which subscription: the user's own, or the organisation's."""

    scope: Scope
    user_id: UUID
    organization_id: UUID | None = None


class Wish(msgspec.Struct, frozen=True):
    """What is to happen to a subscription. `when`: as the rules say, unless given."""

    verb: Verb
    plan_tier: str | None = None
    when: When | None = None


class Outcome(msgspec.Struct, frozen=True):
    """The subscription after a change, and the lines that the change makes."""

    subscription: Subscription
    currency: str
    lines: tuple[Line, ...] = ()


class NoSubscription(Exception):
    """There is none at this address."""


class Exists(Exception):
    """There is a live subscription at this address already."""


class NoPlan(Exception):
    """The catalogue has no plan of this tier."""


class Stale(Exception):
    """The subscription has changed since the version that the caller saw."""


class _Preview(Exception):
    """Ends a transaction that was only to show what it would do."""


class Subscriptions:
    """`grace`: how long after a period's end its invoice waits for usage that comes late."""

    def __init__(self, pool: Pool, superseder: Superseder, grace: timedelta) -> None:
        self._pool = pool
        self._superseder = superseder
        self._grace = grace

    async def create(
        self,
        address: Address,
        plan_tier: str,
        *,
        actor: str,
        now: datetime,
        start: datetime | None = None,
        trial_days: int | None = None,
        timezone: str = "UTC",
    ) -> Outcome:
        """Raises `Exists`, `NoPlan`, `ledger.domain.subscription.NotAllowed`."""
        async with self._pool.acquire() as db:
            try:
                async with db.transaction():
                    version, plan = await _plan(db, plan_tier)
                    begun = life.create(
                        plan,
                        version,
                        start=start or now,
                        now=now,
                        timezone=timezone,
                        trial_days=trial_days,
                    )
                    changed, first = Changed(begun), begun.period(start or now)
                    if begun.status == "active" and not begun.is_trial(first):
                        advance = base_fee(plan, version, first)
                        changed = Changed(begun, _fee(advance), advance)
                    subscription_id = uuid4()
                    await store.subscriptions.insert(
                        db,
                        subscription_id,
                        address.scope,
                        address.user_id,
                        address.organization_id,
                        begun,
                        changed.advance,
                        first,
                        now,
                    )
                    owed = await _finish(
                        db, address, subscription_id, "create", actor, now, changed
                    )
                    held = await _held(db, address)
                    await begin(db, held, now)
            except UniqueViolation:
                raise Exists from None
            await self._reach_quotas(db, owed)
        return Outcome(held, plan.currency, changed.lines)

    async def act(
        self,
        address: Address,
        wish: Wish,
        *,
        actor: str,
        now: datetime,
        if_version: int | None = None,
        preview: bool = False,
    ) -> Outcome:
        """Does what is wished; with `preview` nothing but show what would come of it. Raises
        `NoSubscription`, `NoPlan`, `Stale`, `Exists`, `NotAllowed`."""
        async with self._pool.acquire() as db:
            outcome: Outcome | None = None
            try:
                async with db.transaction():
                    found = await _held(db, address)
                    if if_version not in (None, found.version):
                        raise Stale
                    # A ledger may have ended the period while this waited for the row.
                    now = max(now, found.updated_at)
                    owed = await roll(db, found, now, self._grace)
                    found = await _held(db, address)
                    plan, changed = await _changed(db, found, wish, now)
                    after = changed.subscription
                    running = _running(found, after, now)
                    version = await store.subscriptions.update(
                        db,
                        found.subscription_id,
                        after,
                        changed.advance or found.advance,
                        running,
                        now,
                    )
                    if running is None and found.running is not None:
                        owed.append(await end(db, found, version, now, self._grace))
                    owed.append(
                        await _finish(
                            db, address, found.subscription_id, wish.verb, actor, now, changed
                        )
                    )
                    held = await _held(db, address)
                    if wish.verb == "reactivate":
                        await begin(db, held, now)
                    outcome = Outcome(held, plan.currency, changed.lines)
                    if preview:
                        raise _Preview
            except UniqueViolation:
                raise Exists from None
            except _Preview:
                assert outcome is not None
                return outcome
            for one in owed:
                await self._reach_quotas(db, one)
        return outcome

    async def _reach_quotas(self, db: Executor, owed: int) -> None:
        try:
            await self._superseder.reach(db, owed)
        except UNAVAILABLE as error:
            # The change is made: the ledger sends what is owed as soon as all are back.
            log.warning("supersede_waiting", reason=type(error).__name__)


async def _held(db: Executor, address: Address) -> Subscription:
    found = await store.subscriptions.hold(
        db, address.scope, address.user_id, address.organization_id
    )
    if found is None:
        raise NoSubscription
    if address.organization_id and found.organization_id not in (None, address.organization_id):
        raise NoSubscription
    return found


async def _plan(db: Executor, tier: str, version: int | None = None) -> tuple[int, Plan]:
    found = await store.plan(db, tier, version)
    if found is None:
        raise NoPlan
    return found


def _running(found: Subscription, after: life.Subscription, now: datetime) -> Span | None:
    """The period that runs after a change: another one only after a beginning or a change of
    interval."""
    if after.status in life.ENDED:
        return None
    if found.status in life.ENDED or after.interval != found.interval:
        return after.period(now)
    return found.running


async def _changed(
    db: Executor, found: Subscription, wish: Wish, now: datetime
) -> tuple[Plan, Changed]:
    """What the rules make of a wish, and the plan whose currency its lines have."""
    mine = found.life
    _, plan = await _plan(db, mine.plan_tier, mine.plan_version)
    paid = found.advance if found.advance and now in found.advance.span else None
    match wish.verb:
        case "change":
            assert wish.plan_tier is not None
            version, new = await _plan(db, wish.plan_tier)
            when = wish.when or plan_change.default_when(plan, new)
            if when == "now":
                return plan, plan_change.change_now(mine, plan, new, version, now=now, paid=paid)
            later = plan_change.change_at_period_end(mine, plan, new, version, now=now)
            return plan, Changed(later)
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
            return plan, Changed(again, _fee(advance), advance)


def _fee(advance: Advance) -> tuple[Line, ...]:
    line = paid_line("base_fee", advance, "base fee")
    return (line,) if line.amount else ()


async def _finish(
    db: Executor,
    address: Address,
    subscription_id: UUID,
    verb: str,
    actor: str,
    now: datetime,
    changed: Changed,
) -> int:
    """What every change leaves behind besides its row; what it owes to Redis."""
    await store.subscriptions.note(db, subscription_id, verb, actor, now, now)
    for line in changed.lines:
        await store.subscriptions.add_pending_line(db, subscription_id, line, now)
    after, held = changed.subscription, await _held(db, address)
    details = {
        "subscription_id": str(subscription_id),
        "scope": held.scope,
        "status": after.status,
        "plan_tier": after.plan_tier,
        "plan_version": after.plan_version,
    }
    await store.insert_audit_event(
        db, f"subscription_{_PAST[verb]}", actor, details, now,
        user_id=held.user_id, organization_id=held.organization_id,
    )  # fmt: skip
    change = Superseded(
        subscription_id, held.scope, held.user_id, held.organization_id, held.version
    )
    return await owe(db, change)


_PAST = {
    "create": "created",
    "change": "changed",
    "cancel": "canceled",
    "uncancel": "uncanceled",
    "pause": "paused",
    "resume": "resumed",
    "reactivate": "reactivated",
}
