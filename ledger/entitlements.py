"""Loads quota hashes into Redis: one ledger snapshot plus the tail of the stream.

Only on a miss: first use, new period, new epoch, changed terms. One flight per subject, so that
a thousand requests of one cold account ask Postgres once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from math import inf
from uuid import UUID

import msgspec

from ledger import store
from ledger.db import Connection, Executor, Pool
from ledger.domain.dunning import blocks
from ledger.domain.entitlement import Entitled, Rule, Source, entitled
from ledger.domain.period import Period
from ledger.domain.plan import Scope
from ledger.domain.subscription import ENDED, SubscriptionStatus, fall_due
from ledger.domain.usage import Terms, at_ms, count_of, encode_terms, ms_of
from ledger.flights import SingleFlight, Work
from ledger.grants import grant
from ledger.recovery import recover
from ledger.turns import Turns
from lua import keys
from lua.scripts import Scripts
from lua.types import Fenced, Limit, LoadOutcome, Missing

ATTEMPTS = 5  # each loses only to something newer: a plan change, a recovery, a burst of entries
TAIL_PAGE = 5000
LATE_S = 1.0  # how much later an answer may be looked at than the load that it asks for

Key = tuple[str, bytes | int]


class NotLoaded(Exception):
    """The quota could not be loaded now; nothing was decided and trying again is safe."""


class OrganizationMismatch(Exception):
    """The user's subscription belongs to another organisation than the request says."""


class NoDefaultTier(Exception):
    """BILLING_TIER_DEFAULT names a plan that is not in the catalogue."""


class Snapshot(msgspec.Struct, frozen=True):
    """The ledger at one instant, as far as one subject's quota depends on it."""

    cursor: store.Cursor
    version: int
    period: Period
    good_until: datetime  # when the terms may change without a new version, at most its end
    rules: list[Rule]
    totals: dict[str, int]
    terms: Terms
    blocked: str
    pool_version: int  # of the organisation's terms alone; 0 for a personal account
    ungranted: UUID | None  # the subscription of which something may be left over to be granted


class Loader:
    def __init__(self, pool: Pool, scripts: Scripts, default_tier: str, partitions: int) -> None:
        self._pool = pool
        self._turns = Turns(pool)
        self._partitions = partitions
        self._partitions_agree = False
        self._scripts = scripts
        self._default_tier = default_tier
        self._flights = SingleFlight()
        self._landed_at: dict[Key, float] = {}

    async def load(
        self, partition: int, who: bytes, missing: Missing, now_ms: int, since: float = inf
    ) -> None:
        """Loads the missing quota hashes of a user and its pool, for the period that contains
        `now_ms` (the script's time), unless that was done after `since`, the loop's time at
        which the script was asked. Raises `NotLoaded`, `OrganizationMismatch`, `NoDefaultTier`,
        or what `ledger.db.UNAVAILABLE` lists."""
        if Missing.POOL in missing:
            pool = who[:17]
            await self._once(("load", pool), partial(self._load, partition, pool, now_ms), since)
        if Missing.USER in missing:
            await self._once(("load", who), partial(self._load, partition, who, now_ms), since)

    async def recover(self, partition: int, since: float, acked: str = "0-0") -> None:
        """`ledger.recovery.recover`, once for all who found the partition fenced."""
        await self._once(("recover", partition), partial(self._recover, partition, acked), since)

    async def look_back(self, partition: int, acked: str) -> None:
        """`ledger.recovery.recover` of a partition that may be in order already."""
        await self._recover(partition, acked)

    async def _once(self, key: Key, work: Work, since: float) -> None:
        if self._landed_at.get(key, since) <= since:
            # Else the answer that sent us here is older than what was done about it.
            await self._flights.run(key, partial(self._noting, key, work))

    async def _noting(self, key: Key, work: Work) -> None:
        """Does the work and remembers for a while when it was done."""
        await work()
        loop = asyncio.get_running_loop()
        self._landed_at[key] = loop.time()
        loop.call_later(LATE_S, self._landed_at.pop, key, None)

    async def _recover(self, partition: int, acked: str) -> None:
        async with self._pool.acquire() as connection:
            await recover(connection, self._scripts, partition, acked)  # type: ignore[arg-type]

    async def _load(self, partition: int, subject: bytes, now_ms: int) -> None:
        tail = False  # usually short enough for the script to add it all by itself
        for _ in range(ATTEMPTS):
            async with self._turns.connection() as connection:
                await self._check_partitions(connection)
                if keys.pool_of(subject) not in (None, subject):
                    # Before the snapshot: a change that does not find this row is in it.
                    user_id, organization_id = UUID(bytes=subject[17:]), UUID(bytes=subject[1:17])
                    await store.note_organization_user(connection, user_id, organization_id)
                shot = await self._snapshot(connection, partition, subject, at_ms(now_ms))
            outcome = await self._write(partition, subject, shot, read_tail=tail)
            if outcome is LoadOutcome.LOADED:
                return
            if outcome is LoadOutcome.FENCED:
                raise Fenced
            tail = True
        raise NotLoaded("the quota changed faster than it could be loaded")

    async def _snapshot(
        self, connection: Executor, partition: int, subject: bytes, now: datetime
    ) -> Snapshot:
        shot = await snapshot(connection, partition, subject, now, self._default_tier)
        if shot.ungranted is None:
            return shot
        scope: Scope = "organization" if keys.is_pool(subject) else "user"
        name = keys.subject_text(subject)
        await grant(connection, shot.ungranted, name, scope, shot.period.start, now)
        return await snapshot(connection, partition, subject, now, self._default_tier)

    async def _check_partitions(self, connection: Executor) -> None:
        """Once, before anything is loaded: a gateway that started without Postgres could not see
        that its PARTITIONS is wrong, and would give moved accounts a second quota."""
        if not self._partitions_agree:
            if await store.count_cursors(connection) != self._partitions:
                raise NotLoaded("PARTITIONS is not what this database was made with")
            self._partitions_agree = True

    async def _write(
        self, partition: int, subject: bytes, shot: Snapshot, *, read_tail: bool
    ) -> LoadOutcome:
        through, totals = shot.cursor.last_id, shot.totals
        if read_tail:
            through, totals = await self._with_tail(
                partition, subject, shot.period, through, totals
            )
        return await self._scripts.load(
            partition,
            subject,
            epoch=shot.cursor.epoch,
            version=shot.version,
            revision=shot.cursor.revision,
            starts=ms_of(shot.period.start),
            ends=ms_of(shot.period.end),
            good_until=ms_of(shot.good_until),
            cursor=shot.cursor.last_id,
            through=through,
            terms=encode_terms(shot.terms),
            blocked=shot.blocked,
            pool_version=shot.pool_version,
            limits=[_limit(rule, totals) for rule in shot.rules],
        )

    async def _with_tail(
        self, partition: int, subject: bytes, period: Period, after: str, totals: Mapping[str, int]
    ) -> tuple[str, dict[str, int]]:
        """Totals with the undrained entries, but for the last page, which the script adds."""
        counted = dict(totals)
        starts, is_pool = ms_of(period.start), keys.is_pool(subject)
        while True:
            tail = await self._scripts.read(partition, after=after, count=TAIL_PAGE)
            for _, fields in tail.entries:
                if "recovery" in fields or "control" in fields:
                    continue
                if "event" not in fields:
                    raise NotLoaded("the stream holds entries of another build")
                count = count_of(fields)
                if count is None or not count.who.startswith(subject):
                    continue
                if (count.pool_period if is_pool else count.quota_period) == starts:
                    counted[count.usage_type] = counted.get(count.usage_type, 0) + count.units
            if tail.entries:
                after = tail.entries[-1][0]
            if len(tail.entries) < TAIL_PAGE:
                return after, counted


async def snapshot(
    connection: Connection, partition: int, subject: bytes, now: datetime, default_tier: str
) -> Snapshot:
    """Everything a subject's quota depends on, as of one instant of the ledger. A pool depends on
    its organisation alone, whoever asks for it."""
    pool = keys.is_pool(subject)
    user_id, organization_id = keys.ids_of(subject)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        cursor = await store.cursor(connection, partition)
        default = await store.newest_plan(connection, default_tier)
        if default is None:
            raise NoDefaultTier
        rights = await _entitled(connection, user_id, organization_id, default, now)
        usage_types = await store.usage_types(connection)
        source = rights.pool if pool else rights.user
        assert source is not None, "a pool is an organisation's"
        period = source.period(now)
        leftovers = await _leftovers(connection, source, subject, period)
        granted = {one.usage_type: one.granted for one in leftovers if one.granted is not None}
        rules_of = rights.pool_rules if pool else rights.user_rules
        own, shared = await store.terms_versions(connection, user_id, organization_id)
        return Snapshot(
            cursor=cursor,
            # Each part only ever grows, so their sum does, and changes with any of them.
            version=own + shared + default.version,
            period=period,
            good_until=period.end if pool else rights.good_until(now),
            rules=rules_of(usage_types, granted),
            totals=await store.totals(connection, keys.subject_text(subject), period.start),
            terms=rights.payer.terms,
            blocked="" if pool else rights.blocked,
            pool_version=shared + default.version if organization_id else 0,
            ungranted=source.subscription_id if len(granted) < len(leftovers) else None,
        )


async def _leftovers(
    connection: Connection, source: Source, subject: bytes, period: Period
) -> list[store.grants.Leftover]:
    if source.subscription_id is None:
        return []  # nothing is closed of who has none
    scope: Scope = "organization" if keys.is_pool(subject) else "user"
    return await store.grants.leftovers(
        connection, source.subscription_id, keys.subject_text(subject), period.start, scope
    )


async def _entitled(
    connection: Connection,
    user_id: UUID | None,
    organization_id: UUID | None,
    plan: store.PlanVersion,
    now: datetime,
) -> Entitled:
    own: Source | None = None
    organization: Source | None = None
    for subscription in await store.subscriptions.live(connection, user_id, organization_id):
        if subscription.scope == "organization":
            organization = await _source(connection, subscription, now)
        else:
            if subscription.organization_id not in (None, organization_id):
                raise OrganizationMismatch
            own = await _source(connection, subscription, now)
    default = Source(plan.plan_tier, plan.version, plan.interval, plan.entitlements)
    return entitled(own, organization, default, pooled=organization_id is not None)


async def _source(
    connection: Connection, subscription: store.subscriptions.Subscription, now: datetime
) -> Source | None:
    """The subscription as it is at `now`: what is due is in force whether or not anybody has
    noted it. None when it has ended."""
    life = fall_due(subscription.life, now)
    if life.status in ENDED:
        return None
    entitlements = subscription.entitlements
    if (life.plan_tier, life.plan_version) != (subscription.plan_tier, subscription.plan_version):
        found = await store.plan(connection, life.plan_tier, life.plan_version)
        assert found is not None, "a pending change names a plan version that exists"
        entitlements = found[1].entitlements
    return Source(
        plan_tier=life.plan_tier,
        plan_version=life.plan_version,
        interval=life.interval,
        entitlements=entitlements,
        subscription_id=subscription.subscription_id,
        anchor=life.anchor,
        timezone=life.timezone,
        blocked=await _blocked(connection, subscription.subscription_id, life.status),
    )


async def _blocked(
    connection: Connection, subscription_id: UUID, status: SubscriptionStatus
) -> str:
    """Why usage is refused; empty while it is not."""
    if status == "paused":
        return "paused"
    if status != "past_due":
        return ""
    return "past_due" if blocks(await store.payments.steps(connection, subscription_id)) else ""


def _limit(rule: Rule, totals: Mapping[str, int]) -> Limit:
    return Limit(
        rule.usage_type,
        rule.enforcement,
        rule.limit,
        rule.rate_limit,
        rule.rate_window_us,
        totals.get(rule.usage_type, 0),
        rule.rollover,
    )
