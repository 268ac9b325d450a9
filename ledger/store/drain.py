"""What one batch of the drain writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec

from ledger.db import DuplicateTable, Executor
from ledger.domain.seal import VERSION, Sealed
from ledger.domain.usage import Count, UsageRecord, at_ms
from ledger.store.queries import QUERIES
from lua import keys


class KnownKey(msgspec.Struct, frozen=True):
    partition: int
    stream_id: str
    fingerprint: bytes


async def claim_keys(db: Executor, partition: int, records: Sequence[UsageRecord]) -> set[str]:
    """Stream ids of those whose usage id never counted before; it does now."""
    rows = await db.fetch(
        QUERIES["claim_keys"],
        partition,
        [record.usage_id.hex() for record in records],  # sooner read than a UUID object is made
        [record.stream_id for record in records],
        [record.recorded_at for record in records],
        [record.fingerprint for record in records],
    )
    return {stream_id for (stream_id,) in rows}


async def known_keys(db: Executor, usage_ids: Sequence[bytes]) -> dict[bytes, KnownKey]:
    rows = await db.fetch(QUERIES["known_keys"], [one.hex() for one in usage_ids])
    return {
        row["usage_id"].bytes: KnownKey(row["partition"], row["stream_id"], row["fingerprint"])
        for row in rows
    }


async def add_totals(db: Executor, totals: Iterable[tuple[str, str, datetime, int, int]]) -> None:
    """Adds (subject, usage_type, quota_period, units, records) to the running totals."""
    columns = list(zip(*sorted(totals), strict=True))
    await db.execute(QUERIES["add_totals"], *(list(column) for column in columns))


async def insert_seal(
    db: Executor, partition: int, first: int, last: int, previous: bytes, sealed: Sealed
) -> None:
    await db.execute(
        QUERIES["insert_seal"],
        partition,
        first,
        last,
        last - first + 1,
        previous,
        sealed.head,
        VERSION,
        sealed.marks,
    )


async def insert_refunds(db: Executor, partition: int, records: Sequence[UsageRecord]) -> None:
    """Units that Redis counted again for these repeats, per subject they were counted against."""
    rows = [(record, *counted) for record in records for counted in record.counted]
    await db.execute(
        QUERIES["insert_refunds"],
        partition,
        [record.usage_id.hex() for record, _, _ in rows],
        [subject for _, subject, _ in rows],
        [record.usage_type for record, _, _ in rows],
        [at_ms(period) for _, _, period in rows],
        [record.units for record, _, _ in rows],
        [record.stream_id for record, _, _ in rows],
    )


async def insert_dead_letter(
    db: Executor,
    partition: int,
    stream_id: str,
    fields: Mapping[str, bytes],
    reason: str,
    count: Count | None,
) -> None:
    """Keeps an entry whole, with what Redis counted for it. One that is kept stays as it is."""
    pool_period = count.pool_period if count else None
    entry = {name: value.hex() for name, value in fields.items()}
    await db.execute(
        QUERIES["insert_dead_letter"],
        partition,
        stream_id,
        keys.subject_text(count.who) if count else None,
        count.usage_type if count else None,
        at_ms(count.quota_period) if count else None,
        None if pool_period is None else at_ms(pool_period),
        count.units if count else None,
        msgspec.json.encode(entry).decode(),
        reason,
    )


async def insert_audit_event(
    db: Executor,
    event_type: str,
    actor: str,
    details: dict[str, Any],
    occurred_at: datetime,
    user_id: UUID | None = None,
    organization_id: UUID | None = None,
) -> None:
    body = msgspec.json.encode(details).decode()
    await db.execute(
        QUERIES["insert_audit_event"],
        event_type,
        actor,
        user_id,
        organization_id,
        body,
        occurred_at,
    )


async def ensure_usage_month(db: Executor, month: date) -> None:
    """Outside any transaction: whose wish is overtaken by another's fails in Postgres."""
    # The function looks again once it has the lock, but Postgres still remembers that there was
    # no such table: waiting for an advisory lock does not tell a session what others have made.
    with suppress(DuplicateTable):
        await db.execute(QUERIES["ensure_usage_month"], month)
