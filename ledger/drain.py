"""Turns stream entries into rows, exactly once.

One transaction per batch of one partition:

1. lease the cursor row       another worker skips the partition; dies with our session
2. read entries after it      from the server the row names, or recover first
3. claim the usage ids        an id that ever counted before is not returned
4. rows, totals, seal         of the claimed ones; refunds and dead letters of the others
5. advance the cursor, commit
6. report, trim, unload       outside; repeated by the next batch, or by reconcile, when lost

A crash anywhere before the commit leaves nothing and the batch is read again; after it, only
step 6 is missing. The cursor moves with the rows or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import date, timedelta

import msgspec
import structlog

from ledger import clock, db, logs, store
from ledger.booking import Booking, DrainStopped
from ledger.db import Connection
from ledger.domain.usage import UsageRecord, at_ms
from ledger.recovery import Superseded, recover
from lua import keys
from lua.connection import RedisUnavailable
from lua.scripts import Scripts
from lua.types import Fenced

log = structlog.get_logger()

# Entries per transaction: as many as there are, up to what takes Redis 3 ms to give out. Twice as
# many save nothing more; half as many cost Postgres a tenth.
BATCH = 4000
AHEAD = timedelta(days=7)
_DAY_MS = 86_400_000
STOPPED_S = 5.0  # how often a stopped partition is tried again
REFUSED_S = 0.5  # the same where Redis refuses: it may only be loading its file


class HistoryGap(DrainStopped):
    """The database was restored from before what Redis still has. Draining on would leave out
    without a trace what was recorded in between."""

    def __init__(self, partition: int, cursor: str, floor: str) -> None:
        super().__init__(
            f"partition {partition} was drained up to {cursor}, but Redis has only what came after "
            f"{floor}: {HistoryGap.__doc__} Restore a later backup, or have the gap accepted."
        )


class Drain:
    """Drains every partition it can lease over one connection."""

    def __init__(self, connection: Connection, scripts: Scripts, retention_s: int) -> None:
        self._connection = connection
        self._scripts = scripts
        self._retention_s = retention_s
        self._months: set[date] = set()
        self._usage_types: dict[str, int] = {}
        self._resume_at: dict[int, float] = {}  # partitions that are stopped
        self._seen: dict[int, str] = {}  # last id known to be drained, to look before leasing

    async def run_once(self, partitions: Iterable[int]) -> int:
        """Drains one batch of each partition that has entries; returns how many entries."""
        entries = 0
        for partition in await self._with_work(partitions):
            try:
                entries += await self.partition(partition)
            except db.UNAVAILABLE:
                raise
            except (DrainStopped, Superseded, db.PostgresError) as error:
                self._stop(partition, error, STOPPED_S)
            except RedisUnavailable as error:
                self._stop(partition, error, REFUSED_S)
        return entries

    async def _with_work(self, partitions: Iterable[int]) -> list[int]:
        """Those that have something to do: entries, or a server to be vouched for. Spares an idle
        ledger sixteen transactions every tick. Raises `RedisUnavailable` when no server answers."""
        now = clock.monotonic()
        asked = [one for one in partitions if self._resume_at.get(one, 0) <= now]
        said = await asyncio.gather(*map(self._has_work, asked), return_exceptions=True)
        silent = [one for one in said if isinstance(one, RedisUnavailable) and one.outcome_unknown]
        if silent and len(silent) == len(said):
            raise silent[0]
        found = []
        for partition, one in zip(asked, said, strict=True):
            if isinstance(one, RedisUnavailable):
                self._stop(partition, one, REFUSED_S)
            elif isinstance(one, BaseException):
                raise one
            elif one:
                found.append(partition)
        return found

    async def _has_work(self, partition: int) -> bool:
        after = self._seen.get(partition, "0-0")
        try:
            tail = await self._scripts.read(partition, after=after, count=0)
        except Fenced:
            return True
        return keys.before(after, tail.last_id) or keys.before(after, tail.floor)

    def _stop(self, partition: int, error: Exception, pause_s: float) -> None:
        """The others go on; this one is tried again in case somebody has mended it."""
        reason = str(error).partition("\n")[0]  # what follows may quote a row
        log.error("partition_stopped", partition=partition, reason=reason)
        self._resume_at[partition] = clock.monotonic() + pause_s

    async def partition(self, partition: int) -> int:
        """Drains one batch of a partition; 0 when it is empty or another worker has it."""
        try:
            batch = await self._transaction(partition)
        except Fenced:
            await recover(self._connection, self._scripts, partition)
            return 0
        if batch is None:
            return 0
        self._seen[partition] = batch.last_id
        self._usage_types = batch.booking.usage_types
        for letter in batch.booking.parked:
            log.error("dead_letter", partition=partition, **letter)
        logs.usage_recorded(batch.booking.records, self._usage_types)
        await self._scripts.trim(
            partition, replid=batch.replid, drained=batch.drained, through=batch.trim
        )
        if batch.booking.refunds:  # lost in a crash here: reconcile finds the counters too high
            subjects = {subject for one in batch.booking.refunds for subject, _ in one.counted}
            await self._scripts.unload(partition, sorted(subjects), revision=batch.revision)
        return batch.entries

    async def _transaction(self, partition: int) -> Batch | None:
        while True:
            try:
                async with self._connection.transaction():
                    return await self._batch(partition)
            except _MonthMissing as missing:
                # Outside the batch's transaction: attaching may wait for a VACUUM of the table.
                for month in missing.months:
                    await store.ensure_usage_month(self._connection, month)
                self._months |= missing.months

    async def _batch(self, partition: int) -> Batch | None:
        lease = await store.lease_cursor(self._connection, partition, self._retention_s)
        if lease is None:
            return None
        row = lease.cursor
        self._seen[partition] = row.last_id
        tail = await self._scripts.read(partition, after=row.last_id, count=BATCH)
        if (tail.replid, tail.epoch) != (row.replid, row.epoch) or keys.before(
            tail.last_id, row.last_id
        ):
            raise Fenced
        if keys.before(row.last_id, tail.floor):
            raise HistoryGap(partition, row.last_id, tail.floor)
        if not tail.entries:
            return None
        booking = Booking(self._connection, row, self._usage_types)
        records = await booking.read(tail.entries)
        self._have_months_for(records)
        await booking.book(records, dict(tail.entries))
        last_id, drained = tail.entries[-1][0], row.drained + len(tail.entries)
        await store.advance_cursor(
            self._connection,
            partition,
            last_id,
            drained,
            booking.position,
            booking.head,
            new_trim=lease.trim_due,
        )
        revision = row.revision
        if booking.refunds:  # from now on a load does not count them
            revision = await store.bump_revision(self._connection, partition)
        trim = lease.trim_id if lease.trim_due and lease.trim_id != "0-0" else ""
        return Batch(tail.replid, len(tail.entries), drained, last_id, trim, revision, booking)

    def _have_months_for(self, records: list[UsageRecord]) -> None:
        # A week ahead as well: the first batch of a month would have to wait until it is made.
        numbers = {one.recorded_at // _DAY_MS for one in records}
        days = [at_ms(number * _DAY_MS).date() for number in numbers]
        months = {one.replace(day=1) for day in days for one in (day, day + AHEAD)}
        if months - self._months:
            raise _MonthMissing(months - self._months)


class Batch(msgspec.Struct, frozen=True):
    """What one transaction drained, and what may be trimmed now that it is committed."""

    replid: str
    entries: int
    drained: int
    last_id: str
    trim: str
    revision: int
    booking: Booking


class _MonthMissing(Exception):
    def __init__(self, months: set[date]) -> None:
        self.months = months
