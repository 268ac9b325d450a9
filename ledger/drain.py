"""Turns stream entries into rows, exactly once.

One transaction per batch of one partition:

1. lease the cursor row       another worker skips the partition; dies with our session
2. read entries after it      from the server the row names, or recover first
3. claim the usage ids        an id that ever counted before is not returned
4. rows, totals, seal         of the claimed ones; refunds and dead letters of the others
5. advance the cursor, commit
6. trim and report            outside; repeated by the next batch when lost

A crash anywhere before the commit leaves nothing and the batch is read again; after it, only
step 6 is missing. The cursor moves with the rows or not at all.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from datetime import date, timedelta

import msgspec
import structlog

from ledger import clock, db, logs, store
from ledger.db import Connection
from ledger.domain.usage import BadEntry, UsageRecord, at_ms, parse_entry, seal
from ledger.recovery import Superseded, recover
from lua.scripts import Scripts
from lua.types import Fenced, Tail

log = structlog.get_logger()

BATCH = 2000  # entries per transaction: large enough to fill a round trip, small enough to retry
AHEAD = timedelta(days=7)
STOPPED_S = 5.0  # how often a stopped partition is tried again
BAD_IN_A_ROW = 10  # more than this is a bug or a version skew, not a bad entry


class DrainStopped(Exception):
    """Too many entries in a row cannot be written: nothing is parked or skipped until someone
    has looked. Usually an older ledger reading a newer gateway's entries."""


class Drain:
    """Drains every partition it can lease over one connection."""

    def __init__(self, connection: Connection, scripts: Scripts, retention_s: int) -> None:
        self._connection = connection
        self._scripts = scripts
        self._retention_s = retention_s
        self._months: set[date] = set()
        self._usage_types: dict[str, int] = {}
        self._resume_at: dict[int, float] = {}  # partitions that are stopped
        self._parked: list[dict[str, object]] = []  # by this transaction, to be told of after it
        self._seen: dict[int, str] = {}  # last id known to be drained, to look before leasing

    async def run_once(self, partitions: Iterable[int]) -> int:
        """Drains one batch of each partition that has entries; returns how many entries."""
        waiting = await asyncio.gather(*(self._waiting(partition) for partition in partitions))
        entries = 0
        for partition in waiting:
            if partition is None:
                continue
            try:
                entries += await self.partition(partition)
            except (DrainStopped, Superseded) as error:
                # The others go on; this one is tried again in case somebody has mended it.
                log.error("partition_stopped", partition=partition, reason=str(error))
                self._resume_at[partition] = clock.monotonic() + STOPPED_S
        return entries

    async def _waiting(self, partition: int) -> int | None:
        """The partition if it has something to do: entries, or a server to be vouched for.
        Spares an idle ledger sixteen transactions every tick."""
        if self._resume_at.get(partition, 0) > clock.monotonic():
            return None
        try:
            after = self._seen.get(partition, "0-0")
            tail = await self._scripts.read(partition, after=after, count=1)
        except Fenced:
            return partition
        return partition if tail.entries else None

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
        for letter in self._parked:
            log.error("dead_letter", partition=partition, **letter)
        logs.usage_recorded(batch.records, self._usage_types)
        await self._scripts.trim(
            partition, replid=batch.replid, drained=batch.drained, through=batch.trim
        )
        return batch.entries

    async def _transaction(self, partition: int) -> Batch | None:
        while True:
            try:
                self._parked = []
                async with self._connection.transaction():
                    return await self._batch(partition)
            except _MonthMissing as missing:
                # Outside the batch's transaction: a new partition locks the whole table.
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
        if (tail.replid, tail.epoch) != (row.replid, row.epoch) or _before(
            tail.last_id, row.last_id
        ):
            raise Fenced
        if not tail.entries:
            return None
        records = await self._parse(partition, tail)
        written = _Written(partition, row.drained + 1, lease.audit_head)
        await self._settle(written, records, dict(tail.entries))
        last_id, drained = tail.entries[-1][0], row.drained + len(tail.entries)
        await store.advance_cursor(
            self._connection, partition, last_id, drained, written.head, new_trim=lease.trim_due
        )
        trim = lease.trim_id if lease.trim_due and lease.trim_id != "0-0" else ""
        return Batch(tail.replid, len(tail.entries), drained, last_id, trim, written.records)

    async def _parse(self, partition: int, tail: Tail) -> list[UsageRecord]:
        """Usage records of a batch; control entries become audit events, bad ones are parked."""
        records: list[UsageRecord] = []
        bad = 0
        for stream_id, fields in tail.entries:
            try:
                if "recovery" in fields:
                    await self._recovery(partition, fields)
                else:
                    records.append(parse_entry(stream_id, fields))
                bad = 0
            except BadEntry as error:
                bad += 1
                if bad > BAD_IN_A_ROW:
                    raise DrainStopped(f"{DrainStopped.__doc__} Last: {error}") from error
                await self._park(partition, stream_id, fields, str(error))
        # A week ahead as well: making a month locks the table, which on its first day is busy.
        days = {at_ms(record.recorded_at).date() for record in records}
        months = {one.replace(day=1) for day in days for one in (day, day + AHEAD)}
        if months - self._months:
            raise _MonthMissing(months - self._months)
        return records

    async def _settle(
        self, written: _Written, records: list[UsageRecord], entries: dict[str, dict[str, bytes]]
    ) -> None:
        """Claims and writes the records. Should Postgres refuse one, it is found by halving and
        parked, so that no accepted request can stop a partition."""
        if not records:
            return
        try:
            async with self._connection.transaction():  # a savepoint within the batch's own
                new, repeats = await self._claim(written.partition, records)
                head = await self._write(written, new) if new else written.head
                if repeats:
                    await self._refund(written.partition, repeats, entries)
        except db.REFUSED as error:
            if not _says_which_rule(error):
                raise  # a missing month partition, not a record at fault
            if len(records) > 1:
                middle = len(records) // 2
                await self._settle(written, records[:middle], entries)
                await self._settle(written, records[middle:], entries)
                return
            [record] = records
            written.refused += 1
            if written.refused > BAD_IN_A_ROW:
                raise DrainStopped(f"{DrainStopped.__doc__} Last: {error}") from error
            reason = f"Postgres refuses it: {type(error).__name__}"
            fields = entries[record.stream_id]
            await self._park(written.partition, record.stream_id, fields, reason, record)
            return
        written.records += new
        written.head = head
        written.refused = 0

    async def _claim(
        self, partition: int, records: list[UsageRecord]
    ) -> tuple[list[UsageRecord], list[UsageRecord]]:
        """Records whose id counts now for the first time, and the others."""
        if not records:
            return [], []
        if any(record.usage_type not in self._usage_types for record in records):
            self._usage_types = await store.usage_types(self._connection)
        claimed = await store.claim_keys(self._connection, partition, records)
        new, repeats = [], []
        for record in records:
            if record.usage_id in claimed:
                claimed.remove(record.usage_id)  # a second one in this batch is a repeat
                new.append(record)
            else:
                repeats.append(record)
        return new, repeats

    async def _write(self, written: _Written, records: list[UsageRecord]) -> bytes:
        """Rows, totals and seal of records that count; the new head of the hash chain."""
        partition, first = written.partition, written.first + len(written.records)
        rows = await store.insert_records(self._connection, partition, first, records)
        if rows != len(records):
            raise DrainStopped(f"{len(records) - rows} entries of an unknown usage type")
        totals: dict[tuple[str, str, int], list[int]] = defaultdict(lambda: [0, 0])
        for record in records:
            for subject, starts in record.counted:
                total = totals[subject, record.usage_type, starts]
                total[0] += record.units
                total[1] += 1
        await store.add_totals(
            self._connection,
            [
                (subject, usage_type, at_ms(starts), units, count)
                for (subject, usage_type, starts), (units, count) in totals.items()
            ],
        )
        last = first + len(records) - 1
        head = seal(written.head, records)
        await store.insert_seal(
            self._connection, partition, first, last, len(records), written.head, head
        )
        return head

    async def _refund(
        self, partition: int, repeats: list[UsageRecord], entries: dict[str, dict[str, bytes]]
    ) -> None:
        """A usage id that counted before: the same entry read again, a repeat whose receipt had
        expired (Redis counted it again, the ledger does not), or another body under an old key."""
        known = await store.known_keys(self._connection, [one.usage_id for one in repeats])
        refunds = []
        for record in repeats:
            first = known[record.usage_id]
            if (first.partition, first.stream_id) == (partition, record.stream_id):
                continue
            if first.fingerprint == record.fingerprint:
                refunds.append(record)
            else:
                reason = "idempotency key reused with another body or organization"
                fields = entries[record.stream_id]
                await self._park(partition, record.stream_id, fields, reason, record)
        if refunds:
            log.warning("usage_repeated", partition=partition, records=len(refunds))
            await store.insert_refunds(self._connection, partition, refunds)

    async def _park(
        self,
        partition: int,
        stream_id: str,
        fields: dict[str, bytes],
        reason: str,
        record: UsageRecord | None = None,
    ) -> None:
        self._parked.append({"stream_id": stream_id, "reason": reason})
        entry = {name: value.hex() for name, value in fields.items()}
        if record is not None:
            entry["usage_id"] = str(record.usage_id)
        await store.insert_dead_letter(
            self._connection, partition, stream_id, entry, reason, record
        )

    async def _recovery(self, partition: int, fields: dict[str, bytes]) -> None:
        try:
            details = {name: value.decode() for name, value in fields.items()}
            at = at_ms(int(fields["at"]))
        except (KeyError, ValueError) as error:
            raise BadEntry("recovery entry is malformed") from error
        await store.insert_audit_event(
            self._connection,
            "redis_history_lost",
            "ledger",
            {"partition": partition, **details},
            at,
        )


def _says_which_rule(error: Exception) -> bool:
    """Whether Postgres refused a value, and not for want of a partition to put it in."""
    return not isinstance(error, db.CheckViolation) or bool(error.constraint_name)


class _Written(msgspec.Struct):
    """What a batch has written so far: the place of its first record, and the chain's head."""

    partition: int
    first: int
    head: bytes
    records: list[UsageRecord] = []
    refused: int = 0


class Batch(msgspec.Struct, frozen=True):
    """What one transaction drained, and what may be trimmed now that it is committed."""

    replid: str
    entries: int
    drained: int
    last_id: str
    trim: str
    records: list[UsageRecord]


class _MonthMissing(Exception):
    def __init__(self, months: set[date]) -> None:
        self.months = months


def _before(a: str, b: str) -> bool:
    return tuple(map(int, a.split("-"))) < tuple(map(int, b.split("-")))
