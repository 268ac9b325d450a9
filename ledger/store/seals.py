"""The hash chain of each partition, and the records that it covers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from ledger.db import Connection, Executor
from ledger.domain.usage import Payload, Terms, UsageRecord, ms_of
from ledger.store.queries import QUERIES

PAGE = 2000  # rows in memory at once
_NEVER = 2**63 - 1


class Seal(msgspec.Struct, frozen=True):
    """`kept_head` is of the records that a purge left, where it left some."""

    first_position: int
    last_position: int
    records: int
    previous: bytes
    head: bytes
    version: int
    marks: bytes
    kept: int | None  # of its records, by a purge; None: all
    kept_head: bytes | None


class Head(NamedTuple):
    """Where a chain is: place and hash."""

    position: int
    head: bytes


class Stray(NamedTuple):
    partition: int
    position: int
    usage_id: UUID


async def usage_heads(db: Executor) -> dict[int, Head]:
    """The newest head of every partition's chain."""
    rows = await db.fetch(QUERIES["usage_heads"])
    return {row["partition"]: Head(row["position"], row["head"]) for row in rows}


async def seal_before(db: Executor, partition: int, places: int) -> Head | None:
    """The newest seal that ends at least so many places before the head."""
    row = await db.fetchrow(QUERIES["seal_before"], partition, places)
    return None if row is None else Head(row["position"], row["head"])


async def seal_at(db: Executor, partition: int, position: int) -> bytes | None:
    """The head of the seal that ends there."""
    found: bytes | None = await db.fetchval(QUERIES["seal_at"], partition, position)
    return found


async def stray_records(db: Executor, most: int) -> list[Stray]:
    return [Stray(*row) for row in await db.fetch(QUERIES["stray_records"], most)]


async def stray_seals(db: Executor, most: int) -> list[int]:
    """Partitions that have seals and are none."""
    return [row["partition"] for row in await db.fetch(QUERIES["stray_seals"], most)]


async def seals(db: Connection, partition: int, after: int) -> AsyncIterator[Seal]:
    """Those after a position, in the order of the chain; within a transaction."""
    # A page of them has the marks of many records: kept below what a page of records takes.
    async for row in db.cursor(QUERIES["seals"], partition, after, prefetch=PAGE // 50):
        yield Seal(**dict(row))


async def sealed_records(
    db: Connection, partition: int, after: int, decimals: Mapping[str, int], page: int = PAGE
) -> AsyncIterator[tuple[int, UsageRecord]]:
    """Positions and records of a partition after a position, in order; within a transaction. A
    usage type that there is not is taken for one of whole numbers."""
    async for row in db.cursor(QUERIES["sealed_records"], partition, after, prefetch=page):
        yield row["position"], _record(row, decimals.get(row["usage_type"], 0))


def _record(row: Mapping[str, Any], decimals: int) -> UsageRecord:
    # Terms are those that a row keeps; the fingerprint is with the usage id's claim.
    subscription, reversal, pool = row["subscription_id"], row["reversal_of"], row["pool_period"]
    organization = row["organization_id"]
    return UsageRecord(
        stream_id=row["stream_id"],
        usage_id=row["usage_id"].bytes,
        fingerprint=b"",
        user_id=row["user_id"].bytes,
        organization_id=organization.bytes if organization else None,
        usage_type=row["usage_type"],
        units=_units(row["quantity"], decimals) or 0,
        recorded_at=_ms(row["recorded_at"]),
        occurred_at=_ms(row["occurred_at"]),
        billing_period=row["billing_period"],
        quota_period=_ms(row["quota_period"]),
        pool_period=None if pool is None else _ms(pool),
        used_after=_units(row["used_after"], decimals),
        pool_used_after=_units(row["pool_used_after"], decimals),
        remaining=_units(row["quota_remaining"], decimals),
        exceeded=row["quota_exceeded"],
        enforced=row["enforced"],
        terms=Terms(
            subscription.bytes if subscription else None,
            row["plan_tier"],
            row["plan_version"],
            0,
            "month",
            "",
        ),
        payload=Payload(
            row["idempotency_key"],
            None,
            None if row["metadata"] is None else msgspec.json.decode(row["metadata"]),
            row["recorded_by"],
            reversal.bytes if reversal else None,
        ),
    )


def _units(quantity: Decimal | None, decimals: int) -> int | None:
    """What an edited row has and no counter ever had, such as a part of a unit, is one number of
    its own: rounded it could look unchanged."""
    if quantity is None:
        return None
    scaled = quantity.scaleb(decimals)
    return int(scaled) if scaled == scaled.to_integral_value() and abs(scaled) < _NEVER else -_NEVER


def _ms(instant: datetime) -> int:
    """Likewise: nothing happens between two milliseconds."""
    return -_NEVER if instant.microsecond % 1000 else ms_of(instant)
