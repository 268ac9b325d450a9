"""One typed function per named query of ``ledger/sql``; nothing else sends SQL to the ledger."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.resources import files
from typing import Any
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.domain.period import Interval
from ledger.domain.plan import Entitlement, Plan, Scope
from ledger.domain.subscription import SubscriptionStatus
from ledger.domain.usage import UsageRecord, at_ms

_NAME = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)


def _named(text: str) -> dict[str, str]:
    parts = _NAME.split(text)[1:]
    return {
        name: sql.strip().rstrip(";") for name, sql in zip(parts[::2], parts[1::2], strict=True)
    }


def _queries() -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in sorted(files("ledger").joinpath("sql").iterdir(), key=lambda file: file.name):
        if entry.name.endswith(".sql"):
            found |= _named(entry.read_text("utf-8"))
    return found


QUERIES = _queries()
"""Every query by name; a test prepares each against the migrated schema."""

_entitlements = msgspec.json.Decoder(tuple[Entitlement, ...])


class Cursor(msgspec.Struct, frozen=True):
    """How far a partition has been drained, from which server."""

    partition: int
    epoch: int
    replid: str
    last_id: str
    drained: int


class Lease(msgspec.Struct, frozen=True):
    """A cursor row held by this transaction, with what the drain needs besides."""

    cursor: Cursor
    audit_head: bytes
    trim_id: str
    trim_due: bool


class Subscription(msgspec.Struct, frozen=True):
    subscription_id: UUID
    user_id: UUID
    organization_id: UUID | None
    scope: Scope
    plan_tier: str
    plan_version: int
    version: int
    status: SubscriptionStatus
    anchor: date
    timezone: str
    trial_end: datetime | None
    cancel_at: datetime | None
    pending_change: Any
    created_at: datetime
    updated_at: datetime
    interval: Interval
    entitlements: tuple[Entitlement, ...]


class PlanVersion(msgspec.Struct, frozen=True):
    plan_tier: str
    version: int
    interval: Interval
    entitlements: tuple[Entitlement, ...]


class PastAnswer(msgspec.Struct, frozen=True):
    """What was answered for a usage id, from its row."""

    fingerprint: bytes
    recorded_at: datetime
    remaining: int | None
    exceeded: bool


class KnownKey(msgspec.Struct, frozen=True):
    partition: int
    stream_id: str
    fingerprint: bytes


# Catalogue


async def insert_usage_type(db: Executor, name: str, decimal_places: int, about: str) -> None:
    await db.execute(QUERIES["insert_usage_type"], name, decimal_places, about)


async def insert_first_plan(
    db: Executor, plan: Plan, base_fee: Decimal, entitlements: str, prices: str
) -> None:
    await db.execute(
        QUERIES["insert_first_plan"],
        plan.tier,
        plan.name,
        plan.currency,
        plan.interval,
        base_fee,
        plan.trial_days,
        plan.premium,
        entitlements,
        prices,
    )


async def usage_types(db: Executor) -> dict[str, int]:
    """Decimal places of every usage type."""
    rows = await db.fetch(QUERIES["usage_types"])
    return {row["usage_type"]: row["decimal_places"] for row in rows}


async def newest_plan(db: Executor, tier: str) -> PlanVersion | None:
    row = await db.fetchrow(QUERIES["newest_plan"], tier)
    if row is None:
        return None
    entitlements = _entitlements.decode(row["entitlements"])
    return PlanVersion(row["plan_tier"], row["version"], row["interval"], entitlements)


# Quota


async def live_subscriptions(
    db: Executor, user_id: UUID | None, organization_id: UUID | None
) -> list[Subscription]:
    rows = await db.fetch(QUERIES["live_subscriptions"], user_id, organization_id)
    return [
        Subscription(**{**dict(row), "entitlements": _entitlements.decode(row["entitlements"])})
        for row in rows
    ]


async def organization_of_user(db: Executor, user_id: UUID) -> UUID | None:
    found: UUID | None = await db.fetchval(QUERIES["organization_of_user"], user_id)
    return found


async def terms_version(db: Executor, user_id: UUID, organization_id: UUID | None) -> int:
    """Grows with every change of a subscription that this account's quota depends on."""
    return int(await db.fetchval(QUERIES["terms_version"], user_id, organization_id))


async def totals(db: Executor, subject: str, quota_period: datetime) -> dict[str, int]:
    """Units by usage type that count against a subject in the period."""
    rows = await db.fetch(QUERIES["totals"], subject, quota_period)
    return {row["usage_type"]: row["units"] for row in rows}


# Cursor


async def ensure_cursors(db: Executor, partitions: int) -> int:
    """Makes the cursor rows of a new database; returns how many partitions it has."""
    count: int = await db.fetchval(QUERIES["count_cursors"])
    if count == 0:
        await db.execute(QUERIES["insert_cursors"], partitions)
        count = await db.fetchval(QUERIES["count_cursors"])
    return count


async def cursor(db: Executor, partition: int) -> Cursor:
    return Cursor(**dict(await db.fetchrow(QUERIES["cursor"], partition)))


async def cursors(db: Executor) -> list[Cursor]:
    return [Cursor(**dict(row)) for row in await db.fetch(QUERIES["cursors"])]


async def lease_cursor(db: Executor, partition: int, retention_s: int) -> Lease | None:
    """The row, locked until the transaction ends; None while another worker has it."""
    row = await db.fetchrow(QUERIES["lease_cursor"], partition, retention_s)
    if row is None:
        return None
    cursor = Cursor(row["partition"], row["epoch"], row["replid"], row["last_id"], row["drained"])
    return Lease(cursor, row["audit_head"], row["trim_id"], row["trim_due"])


async def hold_cursor(db: Executor, partition: int) -> Cursor:
    """The row, locked until the transaction ends; waits for whoever has it."""
    return Cursor(**dict(await db.fetchrow(QUERIES["hold_cursor"], partition)))


async def vouch(db: Executor, partition: int, epoch: int, replid: str) -> None:
    await db.execute(QUERIES["vouch"], partition, epoch, replid)


async def advance_cursor(
    db: Executor, partition: int, last_id: str, drained: int, head: bytes, *, new_trim: bool
) -> None:
    await db.execute(QUERIES["advance_cursor"], partition, last_id, drained, head, new_trim)


async def clock_offset(db: Executor) -> int:
    return int(await db.fetchval(QUERIES["clock_offset"]))


# Drain


async def claim_keys(db: Executor, partition: int, records: Sequence[UsageRecord]) -> set[UUID]:
    """Ids among these that never counted before; they do now."""
    rows = await db.fetch(
        QUERIES["claim_keys"],
        partition,
        [record.usage_id for record in records],
        [record.stream_id for record in records],
        [at_ms(record.recorded_at) for record in records],
        [record.fingerprint for record in records],
    )
    return {row["usage_id"] for row in rows}


async def known_keys(db: Executor, usage_ids: Sequence[UUID]) -> dict[UUID, KnownKey]:
    rows = await db.fetch(QUERIES["known_keys"], usage_ids)
    return {
        row["usage_id"]: KnownKey(row["partition"], row["stream_id"], row["fingerprint"])
        for row in rows
    }


async def insert_records(
    db: Executor, partition: int, first_position: int, records: Sequence[UsageRecord]
) -> int:
    """Writes the rows; returns how many (fewer means a usage type is unknown)."""
    columns: list[list[Any]] = [[] for _ in range(24)]
    for position, record in enumerate(records, start=first_position):
        terms, payload = record.terms, record.payload
        row = (
            record.usage_id,
            record.user_id,
            record.organization_id,
            record.usage_type,
            record.units,
            at_ms(record.recorded_at),
            at_ms(record.occurred_at),
            record.billing_period,
            at_ms(record.quota_period),
            at_ms(record.pool_period) if record.pool_period is not None else None,
            UUID(bytes=terms.subscription_id) if terms.subscription_id else None,
            terms.plan_tier,
            terms.plan_version,
            record.used_after,
            record.pool_used_after,
            record.remaining,
            record.exceeded,
            record.enforced,
            msgspec.json.encode(payload.metadata).decode() if payload.metadata else None,
            payload.idempotency_key,
            payload.recorded_by,
            UUID(bytes=payload.reversal_of) if payload.reversal_of else None,
            position,
            record.stream_id,
        )
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    status: str = await db.execute(QUERIES["insert_records"], partition, *columns)
    return int(status.rsplit(" ", 1)[1])


async def add_totals(db: Executor, totals: Iterable[tuple[str, str, datetime, int, int]]) -> None:
    """Adds (subject, usage_type, quota_period, units, records) to the running totals."""
    columns = list(zip(*sorted(totals), strict=True))
    await db.execute(QUERIES["add_totals"], *(list(column) for column in columns))


async def insert_seal(
    db: Executor, partition: int, first: int, last: int, records: int, previous: bytes, head: bytes
) -> None:
    await db.execute(QUERIES["insert_seal"], partition, first, last, records, previous, head)


async def insert_refunds(db: Executor, partition: int, records: Sequence[UsageRecord]) -> None:
    """Units that Redis counted again for these repeats, per subject they were counted against."""
    rows = [(record, *counted) for record in records for counted in record.counted]
    await db.execute(
        QUERIES["insert_refunds"],
        partition,
        [record.usage_id for record, _, _ in rows],
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
    entry: dict[str, str],
    reason: str,
    record: UsageRecord | None = None,
) -> None:
    await db.execute(
        QUERIES["insert_dead_letter"],
        partition,
        stream_id,
        record.counted[0][0] if record else None,
        record.usage_type if record else None,
        at_ms(record.quota_period) if record else None,
        record.units if record else None,
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
    await db.execute(QUERIES["ensure_usage_month"], month)


# Usage


async def answers(db: Executor, usage_ids: Sequence[UUID]) -> dict[UUID, PastAnswer]:
    rows = await db.fetch(QUERIES["answers"], usage_ids)
    return {
        row["usage_id"]: PastAnswer(
            row["fingerprint"],
            row["recorded_at"].astimezone(UTC),
            row["remaining"],
            row["quota_exceeded"],
        )
        for row in rows
    }


async def usage_position(db: Executor, usage_id: UUID) -> tuple[datetime, UUID] | None:
    row = await db.fetchrow(QUERIES["usage_position"], usage_id)
    return None if row is None else (row["recorded_at"], row["usage_id"])


async def list_usage(
    db: Executor,
    *,
    user_id: UUID | None,
    organization_ids: Sequence[UUID] | None,
    usage_type: str | None,
    since: datetime | None,
    until: datetime | None,
    after: tuple[datetime, UUID] | None,
    count: int,
) -> list[dict[str, Any]]:
    after_time, after_id = after if after else (None, None)
    rows = await db.fetch(
        QUERIES["list_usage"],
        user_id,
        organization_ids,
        usage_type,
        since,
        until,
        after_time,
        after_id,
        count,
    )
    return [dict(row) for row in rows]
