"""Changes of subscriptions: one transaction each, and then every quota that it concerns.

1. hold the row; periods that are over end first (`ledger.rollover`)
2. the rules decide (`ledger.wishes`)
3. row, history, lines for the next invoice, audit event, outbox row; commit
4. send what is owed to Redis (`ledger.supersede`), so that the next request is on the new terms

A crash after 3 is finished by the ledger; nobody is answered before 4.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID, uuid4

import msgspec
import structlog

from ledger import store
from ledger.db import UNAVAILABLE, Executor, Pool, UniqueViolation
from ledger.domain import subscription as life
from ledger.domain.line import Line
from ledger.domain.overrides import Overrides
from ledger.domain.period import Span
from ledger.domain.plan import Plan, Scope
from ledger.domain.proration import base_fee
from ledger.domain.subscription import Changed
from ledger.once import Once, Replayed, claim, keep
from ledger.organizations import timezone_of
from ledger.rollover import begin, end, roll
from ledger.store.subscriptions import Subscription
from ledger.supersede import NewTerms, Superseder, owe
from ledger.wishes import Wish, agreed, decided, fee, running_after

log = structlog.get_logger()


class Address(msgspec.Struct, frozen=True):
    """Which subscription: the user's own, or the organisation's."""

    scope: Scope
    user_id: UUID
    organization_id: UUID | None = None


class Outcome(msgspec.Struct, frozen=True):
    """The subscription after a change, and the lines that the change makes."""

    subscription: Subscription
    currency: str
    lines: tuple[Line, ...] = ()


class NoSubscription(Exception):
    """There is none at this address."""


class Exists(Exception):
    """There is a live subscription at this address already."""


class Stale(Exception):
    """The subscription has changed since the version that the caller saw."""


class _Shown(Exception):
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
        timezone: str | None = None,
        overrides: Overrides | None = None,
        once: Once | None = None,
    ) -> Outcome:
        """In the organisation's time zone unless one is given, and then for good. Raises `Exists`,
        `ledger.once.Replayed`, `ledger.once.KeyReused`, `ledger.wishes.NoPlan`,
        `ledger.domain.subscription.NotAllowed`, `ledger.domain.plan_problems.PlanError`."""
        subscription_id = uuid4()
        async with self._pool.acquire() as db:
            try:
                async with db.transaction():
                    await claim(db, once, now)
                    version, plan = await agreed(
                        db, subscription_id, plan_tier, overrides, actor=actor, now=now
                    )
                    begun = life.create(
                        plan,
                        version,
                        start=start or now,
                        now=now,
                        timezone=timezone or await timezone_of(db, address.organization_id),
                        trial_days=trial_days,
                    )
                    first = begun.period(start or now)
                    outcome, owed = await _insert(
                        db, address, subscription_id, plan, begun, first, actor, now
                    )
                    await keep(db, once, outcome)
            except UniqueViolation:
                raise Exists from None
            except Replayed:
                # Who made it may have died before the quotas were told.
                await self._superseder.run_once(db)
                raise
            await self._reach_quotas(db, owed)
        return outcome

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
        `NoSubscription`, `NoPlan`, `Stale`, `Exists`, `NotAllowed`, `PlanError`."""
        async with self._pool.acquire() as db:
            try:
                outcome, owed = await carry_out(
                    db, address, wish, actor, now, self._grace, if_version, preview=preview
                )
            except UniqueViolation:
                raise Exists from None
            for one in owed:
                await self._reach_quotas(db, one)
        return outcome

    async def _reach_quotas(self, db: Executor, owed: int) -> None:
        try:
            await self._superseder.reach(db, owed)
        except UNAVAILABLE as error:
            # The change is made: the ledger sends what is owed as soon as all are back.
            log.warning("supersede_waiting", reason=type(error).__name__)


async def carry_out(
    db: Executor,
    address: Address,
    wish: Wish,
    actor: str,
    now: datetime,
    grace: timedelta,
    if_version: int | None = None,
    *,
    preview: bool = False,
) -> tuple[Outcome, list[int]]:
    """The subscription after what is wished, and all that is then owed to Redis; nothing is kept
    with `preview`. In a transaction, or a savepoint of the caller's; raises what
    `Subscriptions.act` does."""
    try:
        async with db.transaction():
            outcome, owed = await _carry_out(db, address, wish, actor, now, grace, if_version)
            if preview:
                raise _Shown
    except _Shown:
        return outcome, []
    return outcome, owed


async def _carry_out(
    db: Executor,
    address: Address,
    wish: Wish,
    actor: str,
    now: datetime,
    grace: timedelta,
    if_version: int | None,
) -> tuple[Outcome, list[int]]:
    await store.subscriptions.wait_at(db, address.scope, address.user_id, address.organization_id)
    found = await _held(db, address)
    if if_version not in (None, found.version):
        raise Stale
    # A ledger may have ended the period while this waited for the row. And what begins again does
    # so after its end: beginnings and ends of one day are told apart by their instants.
    apart = timedelta(microseconds=1 if wish.verb == "reactivate" else 0)
    now = max(now, found.updated_at + apart)
    owed = await roll(db, found, now, grace)
    found = await _held(db, address)
    plan, changed = await decided(db, found, wish, actor, now)
    running = running_after(found, changed.subscription, now)
    version = await store.subscriptions.update(
        db,
        found.subscription_id,
        changed.subscription,
        changed.advance or found.advance,
        running,
        now,
    )
    if running is None and found.running is not None:
        owed.append(await end(db, found, version, now, grace))
    owed.append(await _finish(db, address, found.subscription_id, wish.verb, actor, now, changed))
    held = await _held(db, address)
    if wish.verb == "reactivate":
        await begin(db, held, now)
    return Outcome(held, plan.currency, changed.lines), owed


async def _insert(
    db: Executor,
    address: Address,
    subscription_id: UUID,
    plan: Plan,
    begun: life.Subscription,
    first: Span,
    actor: str,
    now: datetime,
) -> tuple[Outcome, int]:
    """A subscription that begins with the period `first`, charged in advance unless it is a
    trial's; what it owes to Redis."""
    changed = Changed(begun)
    if begun.status == "active" and not life.is_trial(begun.trial_end, first):
        advance = base_fee(plan, begun.plan_version, first)
        changed = Changed(begun, fee(advance), advance)
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
    owed = await _finish(db, address, subscription_id, "create", actor, now, changed)
    held = await _held(db, address)
    await begin(db, held, now)
    return Outcome(held, plan.currency, changed.lines), owed


async def _held(db: Executor, address: Address) -> Subscription:
    found = await store.subscriptions.hold(
        db, address.scope, address.user_id, address.organization_id
    )
    if found is None:
        raise NoSubscription
    if address.organization_id and found.organization_id not in (None, address.organization_id):
        raise NoSubscription
    return found


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
    return await owe(db, NewTerms.of(held, held.version))


_PAST = {
    "create": "created", "change": "changed", "migrate": "migrated", "cancel": "canceled",
    "uncancel": "uncanceled", "pause": "paused", "resume": "resumed", "reactivate": "reactivated",
    "payment_failed": "past_due", "paid": "recovered", "expire": "expired",
}  # fmt: skip
