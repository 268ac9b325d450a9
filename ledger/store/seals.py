"""The hash chain of each partition, and the records that it covers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from ledger.db import Connection, Executor
from ledger.domain.usage import Payload, Terms, UsageRecord, ms_of
from ledger.store.queries import QUERIES

_PAGE = 2000  # rows in memory at once


class Seal(msgspec.Struct, frozen=True):
    """`kept_head` is of the records that a purge left, where it left some."""

    first_position: int
    last_position: int
    records: int
    previous: bytes
    head: bytes
    kept: int | None  # of its records, by a purge; None: all
    kept_head: bytes | None


async def audit_heads(db: Executor) -> dict[int, bytes]:
    """The newest head of every partition's chain."""
    return {row["partition"]: row["audit_head"] for row in await db.fetch(QUERIES["audit_heads"])}


async def seals(db: Connection, partition: int, after: int) -> AsyncIterator[Seal]:
    """Those after a position, in the order of the chain; within a transaction."""
    async for row in db.cursor(QUERIES["seals"], partition, after, prefetch=_PAGE):
        yield Seal(**dict(row))


async def sealed_records(
    db: Connection, partition: int, after: int, decimals: Mapping[str, int]
) -> AsyncIterator[tuple[int, UsageRecord]]:
    """Positions and records of a partition after a position, in order; within a transaction."""
    async for row in db.cursor(QUERIES["sealed_records"], partition, after, prefetch=_PAGE):
        yield row["position"], _record(row, decimals[row["usage_type"]])


def _record(row: Mapping[str, Any], decimals: int) -> UsageRecord:
    # What a seal does not cover is not read.
    subscription, reversal, pool = row["subscription_id"], row["reversal_of"], row["pool_period"]
    organization = row["organization_id"]
    return UsageRecord(
        stream_id="",
        usage_id=row["usage_id"].bytes,
        fingerprint=b"",
        user_id=row["user_id"].bytes,
        organization_id=organization.bytes if organization else None,
        usage_type=row["usage_type"],
        units=int(row["quantity"].scaleb(decimals)),
        recorded_at=ms_of(row["recorded_at"]),
        occurred_at=ms_of(row["occurred_at"]),
        billing_period=row["billing_period"],
        quota_period=ms_of(row["quota_period"]),
        pool_period=None if pool is None else ms_of(pool),
        used_after=0,
        pool_used_after=None,
        remaining=None,
        exceeded=False,
        enforced=False,
        terms=Terms(
            subscription.bytes if subscription else None,
            row["plan_tier"],
            row["plan_version"],
            0,
            "month",
            "",
        ),
        payload=Payload(None, None, None, row["recorded_by"], reversal.bytes if reversal else None),
    )
