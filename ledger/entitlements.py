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

from ledger import store
from ledger.db import Connection, Pool
from ledger.domain.entitlement import Rule
from ledger.domain.period import Period
from ledger.domain.usage import at_ms, count_of, encode_terms, ms_of
from ledger.flights import SingleFlight, Work
from ledger.grants import grant
from ledger.recovery import recover
from ledger.snapshot import Snapshot, scope_of, snapshot
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
            await recover(connection, self._scripts, partition, acked)

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
        self, connection: Connection, partition: int, subject: bytes, now: datetime
    ) -> Snapshot:
        shot = await snapshot(connection, partition, subject, now, self._default_tier)
        if shot.ungranted is None:
            return shot
        name = keys.subject_text(subject)
        await grant(connection, shot.ungranted, name, scope_of(subject), shot.period.start, now)
        return await snapshot(connection, partition, subject, now, self._default_tier)

    async def _check_partitions(self, connection: Connection) -> None:
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
