"""Loads quota hashes into Redis: one ledger snapshot plus the tail of the stream.

Only on a miss: first use, new period, new epoch, changed terms. One flight per subject, so that
a thousand requests of one cold account ask Postgres once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import datetime
from math import inf
from typing import Any
from uuid import UUID

import msgspec

from ledger import store
from ledger.db import Connection, Pool
from ledger.domain.entitlement import Entitled, Rule, Source, entitled
from ledger.domain.period import Period
from ledger.domain.usage import at_ms, encode_terms, ms_of
from ledger.recovery import recover
from lua import keys
from lua.scripts import Fenced, Limit, LoadOutcome, Missing, Scripts

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
    """The ledger at one instant, as far as one account's quota depends on it."""

    cursor: store.Cursor
    version: int
    entitled: Entitled
    user_period: Period
    pool_period: Period | None
    usage_types: dict[str, int]
    user_totals: dict[str, int]
    pool_totals: dict[str, int]


class Loader:
    def __init__(self, pool: Pool, scripts: Scripts, default_tier: str) -> None:
        self._pool = pool
        self._scripts = scripts
        self._default_tier = default_tier
        self._flights: dict[Key, asyncio.Task[None]] = {}
        self._landed_at: dict[Key, float] = {}

    async def load(
        self, partition: int, who: bytes, missing: Missing, now_ms: int, since: float = inf
    ) -> None:
        """Loads the missing quota hashes of a user and its pool, for the period that contains
        `now_ms` (the script's time), unless that was done after `since`, the loop's time at
        which the script was asked. Raises `NotLoaded`, `OrganizationMismatch`, `NoDefaultTier`,
        or what `ledger.db.UNAVAILABLE` lists."""
        if Missing.POOL in missing:
            await self._once(
                ("load", who[:17]), self._load(partition, who, who[:17], now_ms), since
            )
        if Missing.USER in missing:
            await self._once(("load", who), self._load(partition, who, who, now_ms), since)

    async def recover(self, partition: int, since: float, acked: str = "0-0") -> None:
        """`ledger.recovery.recover`, once for all who found the partition fenced."""
        await self._once(("recover", partition), self._recover(partition, acked), since)

    async def _once(self, key: Key, work: Coroutine[Any, Any, None], since: float) -> None:
        if self._landed_at.get(key, since) > since:
            work.close()  # the answer that sent us here is older than what was done about it
            return
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.ensure_future(work)
            flight.add_done_callback(lambda done: self._landed(key, done))
        else:
            work.close()
        await asyncio.shield(flight)  # one caller going away must not fail the others

    def _landed(self, key: Key, flight: asyncio.Task[None]) -> None:
        self._flights.pop(key, None)
        # Looking at the exception counts as seen, even when every caller has gone away meanwhile.
        if not flight.cancelled() and flight.exception() is None:
            loop = asyncio.get_running_loop()
            self._landed_at[key] = loop.time()
            loop.call_later(LATE_S, self._landed_at.pop, key, None)

    async def _recover(self, partition: int, acked: str) -> None:
        async with self._pool.acquire() as connection:
            await recover(connection, self._scripts, partition, acked)  # type: ignore[arg-type]

    async def _load(self, partition: int, who: bytes, subject: bytes, now_ms: int) -> None:
        tail = False  # usually short enough for the script to add it all by itself
        for _ in range(ATTEMPTS):
            async with self._pool.acquire() as connection:
                shot = await snapshot(
                    connection,  # type: ignore[arg-type]
                    partition,
                    who,
                    at_ms(now_ms),
                    self._default_tier,
                )
            outcome = await self._write(partition, shot, subject, read_tail=tail)
            if outcome is LoadOutcome.LOADED:
                return
            if outcome is LoadOutcome.FENCED:
                raise Fenced
            tail = True
        raise NotLoaded("the quota changed faster than it could be loaded")

    async def _write(
        self, partition: int, shot: Snapshot, subject: bytes, *, read_tail: bool
    ) -> LoadOutcome:
        is_pool = subject[:1] == b"o" and len(subject) == 17
        if is_pool:
            period = shot.pool_period or shot.user_period
            totals, rules = shot.pool_totals, shot.entitled.pool_rules(shot.usage_types)
        else:
            period = shot.user_period
            totals, rules = shot.user_totals, shot.entitled.user_rules(shot.usage_types)
        through = shot.cursor.last_id
        if read_tail:
            through, totals = await self._with_tail(partition, subject, period, through, totals)
        return await self._scripts.load(
            partition,
            subject,
            epoch=shot.cursor.epoch,
            version=shot.version,
            starts=ms_of(period.start),
            ends=ms_of(period.end),
            cursor=shot.cursor.last_id,
            through=through,
            terms=encode_terms(shot.entitled.payer.terms),
            blocked="" if is_pool else shot.entitled.blocked,
            limits=[_limit(rule, totals) for rule in rules],
        )

    async def _with_tail(
        self, partition: int, subject: bytes, period: Period, after: str, totals: Mapping[str, int]
    ) -> tuple[str, dict[str, int]]:
        """Totals with the undrained entries, but for the last page, which the script adds."""
        counted = dict(totals)
        starts = b"%d" % ms_of(period.start)
        place = 3 if len(subject) == 17 and subject[:1] == b"o" else 2
        while True:
            tail = await self._scripts.read(partition, after=after, count=TAIL_PAGE)
            for _, fields in tail.entries:
                if fields.get("who", b"").startswith(subject):
                    quota = fields["quota"].split()
                    if quota[place] == starts:
                        usage_type = fields["type"].decode()
                        counted[usage_type] = counted.get(usage_type, 0) + int(quota[0])
            if tail.entries:
                after = tail.entries[-1][0]
            if len(tail.entries) < TAIL_PAGE:
                return after, counted


async def snapshot(
    connection: Connection, partition: int, who: bytes, now: datetime, default_tier: str
) -> Snapshot:
    """Everything an account's quota depends on, as of one instant of the ledger."""
    user_id = UUID(bytes=who[-16:])
    organization_id = UUID(bytes=who[1:17]) if who[:1] == b"o" else None
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        cursor = await store.cursor(connection, partition)
        rights = await _entitled(connection, user_id, organization_id, default_tier)
        user_period = rights.user.period(now)
        pool_period = rights.pool.period(now) if rights.pool else None
        return Snapshot(
            cursor=cursor,
            version=await store.terms_version(connection, user_id, organization_id),
            entitled=rights,
            user_period=user_period,
            pool_period=pool_period,
            usage_types=await store.usage_types(connection),
            user_totals=await store.totals(connection, keys.subject_text(who), user_period.start),
            pool_totals=await store.totals(
                connection, keys.subject_text(who[:17]), pool_period.start
            )
            if pool_period
            else {},
        )


async def _entitled(
    connection: Connection, user_id: UUID, organization_id: UUID | None, default_tier: str
) -> Entitled:
    own: Source | None = None
    organization: Source | None = None
    for subscription in await store.live_subscriptions(connection, user_id, organization_id):
        if subscription.scope == "organization":
            organization = _source(subscription)
        else:
            if subscription.organization_id not in (None, organization_id):
                raise OrganizationMismatch
            own = _source(subscription)
    plan = await store.newest_plan(connection, default_tier)
    if plan is None:
        raise NoDefaultTier
    default = Source(plan.plan_tier, plan.version, plan.interval, plan.entitlements)
    return entitled(own, organization, default, pooled=organization_id is not None)


def _source(subscription: store.Subscription) -> Source:
    return Source(
        plan_tier=subscription.plan_tier,
        plan_version=subscription.plan_version,
        interval=subscription.interval,
        entitlements=subscription.entitlements,
        subscription_id=subscription.subscription_id,
        anchor=subscription.anchor,
        timezone=subscription.timezone,
        paused=subscription.status == "paused",
    )


def _limit(rule: Rule, totals: Mapping[str, int]) -> Limit:
    return Limit(
        rule.usage_type,
        rule.enforcement,
        rule.limit,
        rule.rate_limit,
        rule.rate_window_us,
        totals.get(rule.usage_type, 0),
    )
