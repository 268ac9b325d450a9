"""What the drain's transaction writes of a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import structlog

from ledger import db, store
from ledger.db import Connection
from ledger.domain.control import parse_control
from ledger.domain.seal import seal
from ledger.domain.usage import BadEntry, Terms, UsageRecord, at_ms, count_of, parse_entry

log = structlog.get_logger()

_EARLIER = {"id", "who", "type"}  # fields of entries from before they were packed
BAD_IN_A_ROW = 10  # more than this is a bug or a version skew, not a bad entry


class DrainStopped(Exception):
    """Too many entries in a row cannot be written: nothing is parked or skipped until someone
    has looked. Usually an older ledger reading a newer gateway's entries."""


class Booking:
    """Books a batch of a partition's entries: rows, totals and a seal of the records that count,
    refunds of those that counted before, dead letters of what cannot be written. The caller
    holds the partition's `row`, and writes `position` and `head` to it afterwards."""

    def __init__(
        self, connection: Connection, row: store.Cursor, usage_types: dict[str, int]
    ) -> None:
        self.head = row.audit_head
        self.usage_types = usage_types  # decimal places, read again when one is not there
        self.records: list[UsageRecord] = []
        self.refunds: list[UsageRecord] = []
        self.parked: list[dict[str, object]] = []  # to be told of once it is committed
        self._connection = connection
        self._partition = row.partition
        self._before = row.position
        self._refused = 0  # in a row, by Postgres

    @property
    def position(self) -> int:
        """Place of the last record in the partition's order."""
        return self._before + len(self.records)

    async def read(self, entries: Sequence[tuple[str, dict[str, bytes]]]) -> list[UsageRecord]:
        """Usage records of a batch; control entries become audit events, bad ones are parked."""
        records: list[UsageRecord] = []
        bad = 0
        for stream_id, fields in entries:
            try:
                if "recovery" in fields:
                    await self._recovery(fields)
                elif "control" in fields:
                    await self._control(stream_id, fields)
                elif fields.keys() >= _EARLIER:
                    raise DrainStopped("entries of an earlier build: only that can drain them")
                else:
                    records.append(parse_entry(stream_id, fields))
                bad = 0
            except BadEntry as error:
                bad += 1
                if bad > BAD_IN_A_ROW:
                    raise DrainStopped(f"{DrainStopped.__doc__} Last: {error}") from error
                await self._park(stream_id, fields, str(error))
        return records

    async def book(self, records: list[UsageRecord], entries: dict[str, dict[str, bytes]]) -> None:
        """Claims and writes the records. Should Postgres refuse one, it is found by halving and
        parked, so that no accepted request can stop a partition."""
        if not records:
            return
        try:
            async with self._connection.transaction():  # a savepoint within the batch's own
                new, repeats = await self._claim(records)
                head = await self._write(new) if new else self.head
                refunds = await self._refund(repeats, entries) if repeats else []
        except db.REFUSED as error:
            if not _says_which_rule(error):
                raise  # a missing month partition, not a record at fault
            if len(records) > 1:
                middle = len(records) // 2
                await self.book(records[:middle], entries)
                await self.book(records[middle:], entries)
                return
            [record] = records
            self._refused += 1
            # Never the error's own text: it quotes the row, and with it what the caller said.
            reason = f"Postgres refuses it: {type(error).__name__}"
            if self._refused > BAD_IN_A_ROW:
                raise DrainStopped(f"{DrainStopped.__doc__} Last: {reason}") from error
            await self._park(record.stream_id, entries[record.stream_id], reason)
            return
        self.records += new
        self.refunds += refunds
        self.head = head
        self._refused = 0

    async def _claim(
        self, records: list[UsageRecord]
    ) -> tuple[list[UsageRecord], list[UsageRecord]]:
        """Records whose id counts now for the first time, and the others."""
        if any(record.usage_type not in self.usage_types for record in records):
            self.usage_types = await store.usage_types(self._connection)
        claimed = await store.claim_keys(self._connection, self._partition, records)
        if len(claimed) == len(records):
            return records, []
        new = [record for record in records if record.stream_id in claimed]
        return new, [record for record in records if record.stream_id not in claimed]

    async def _write(self, records: list[UsageRecord]) -> bytes:
        """Rows, totals and seal of records that count; the new head of the hash chain."""
        partition, first = self._partition, self.position + 1
        unknown = sum(record.usage_type not in self.usage_types for record in records)
        if unknown:
            raise DrainStopped(f"{unknown} entries of an unknown usage type")
        await store.insert_records(self._connection, partition, first, records, self.usage_types)
        await store.add_totals(self._connection, _totals(records))
        if billable := _billable(records):
            await store.billable.add(self._connection, partition, billable)
        last = first + len(records) - 1
        sealed = seal(self.head, records, partition=partition, first=first)
        await store.insert_seal(self._connection, partition, first, last, self.head, sealed)
        return sealed.head

    async def _refund(
        self, repeats: list[UsageRecord], entries: dict[str, dict[str, bytes]]
    ) -> list[UsageRecord]:
        """A usage id that counted before: the same entry read again, a repeat whose receipt had
        expired (Redis counted it again, the ledger does not), or another body under an old key."""
        known = await store.known_keys(self._connection, [one.usage_id for one in repeats])
        refunds = []
        for record in repeats:
            first = known[record.usage_id]
            if (first.partition, first.stream_id) == (self._partition, record.stream_id):
                continue
            if first.fingerprint == record.fingerprint:
                refunds.append(record)
            else:
                reason = "idempotency key reused with another body or organization"
                await self._park(record.stream_id, entries[record.stream_id], reason)
        if refunds:
            log.warning("usage_repeated", partition=self._partition, records=len(refunds))
            await store.insert_refunds(self._connection, self._partition, refunds)
        return refunds

    async def _park(self, stream_id: str, fields: dict[str, bytes], reason: str) -> None:
        self.parked.append({"stream_id": stream_id, "reason": reason})
        await store.insert_dead_letter(
            self._connection, self._partition, stream_id, fields, reason, count_of(fields)
        )

    async def _recovery(self, fields: dict[str, bytes]) -> None:
        try:
            details = {name: value.decode() for name, value in fields.items()}
            at = at_ms(int(fields["at"]))
        except (KeyError, ValueError) as error:
            raise BadEntry("recovery entry is malformed") from error
        # An operator's decision has its own event, of when it was made and by whom.
        kind = "redis_epoch_began" if "decided" in fields else "redis_history_lost"
        await store.insert_audit_event(
            self._connection,
            kind,
            "ledger",
            {"partition": self._partition, **details},
            at,
        )

    async def _control(self, stream_id: str, fields: dict[str, bytes]) -> None:
        control, at = parse_control(fields)
        await store.outbox.drained(self._connection, control.outbox_id, self._partition)
        await store.insert_audit_event(
            self._connection,
            "period_closed" if control.kind == "close" else "quota_superseded",
            "ledger",
            {
                "partition": self._partition,
                "stream_id": stream_id,
                "subscription_id": str(UUID(bytes=control.subscription_id)),
                "version": control.version,
            },
            at,
        )


def _totals(records: Iterable[UsageRecord]) -> list[tuple[str, str, datetime, int, int]]:
    """(subject, usage type, start of the quota's period, units, records) of these."""
    alike: dict[tuple[Any, ...], list[UsageRecord]] = defaultdict(list)
    for record in records:  # whose subjects are the same: to name them takes longest
        account = record.user_id, record.organization_id, record.usage_type
        alike[*account, record.quota_period, record.pool_period].append(record)
    totals: dict[tuple[str, str, int], list[int]] = defaultdict(lambda: [0, 0])
    for same in alike.values():
        for subject, starts in same[0].counted:
            total = totals[subject, same[0].usage_type, starts]
            total[0] += sum(record.units for record in same)
            total[1] += len(same)
    return [(*of[:2], at_ms(of[2]), units, count) for of, (units, count) in totals.items()]


def _billable(records: Iterable[UsageRecord]) -> list[tuple[Terms, date, str, int, int]]:
    """(terms, billing period, usage type, units, records) of those that somebody pays for."""
    totals: dict[tuple[Terms, date, str], list[int]] = defaultdict(lambda: [0, 0])
    for record in records:
        total = totals[record.terms, record.billing_period, record.usage_type]
        total[0] += record.units
        total[1] += 1
    return [
        (*of, units, count)
        for of, (units, count) in totals.items()
        if of[0].subscription_id is not None
    ]


def _says_which_rule(error: Exception) -> bool:
    """Whether Postgres refused a value, and not for want of a partition to put it in."""
    return not isinstance(error, db.CheckViolation) or bool(error.constraint_name)
