"""Comparing what Redis and the ledger hold, and the ledger with itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.store.queries import QUERIES


class WrongTotal(msgspec.Struct, frozen=True):
    """A running total that is not the sum of its rows; in quantities."""

    subject: str
    usage_type: str
    quota_period: datetime
    found: Decimal
    expected: Decimal
    records: int  # that add up to what is expected


class Look(msgspec.Struct, frozen=True):
    """A look at a partition that has begun, by when it did; up to which position the rows were
    compared before, and what was found then (JSON)."""

    partition: int
    claimed_at: datetime
    position: int
    findings: str


async def claim_reconcile(db: Executor, partition: int, every_s: int | None) -> Look | None:
    """Begins a look, which any other gives way to; None when somebody did so less than `every_s`
    ago, if that is given."""
    row = await db.fetchrow(QUERIES["claim_reconcile"], partition, every_s)
    return None if row is None else Look(partition, **dict(row))


async def note_reconcile(
    db: Executor, look: Look, position: int, findings: Any, *, completed: bool
) -> None:
    """Notes what a look found, unless another one has begun since."""
    body = msgspec.json.encode(findings).decode()
    await db.execute(
        QUERIES["note_reconcile"], look.partition, look.claimed_at, position, body, completed
    )


async def forget_findings(
    db: Executor, partition: int, subjects: Sequence[str], subscriptions: Sequence[UUID] = ()
) -> None:
    """Takes back what was told of these subjects and subscriptions, which has been mended."""
    payers = [str(one) for one in subscriptions]
    await db.execute(QUERIES["forget_findings"], partition, subjects, payers)


async def reconcile_ages(db: Executor) -> dict[int, int]:
    """Seconds since a look at each partition last completed."""
    rows = await db.fetch(QUERIES["reconcile_ages"])
    return {row["partition"]: row["seconds"] for row in rows}


class Found(msgspec.Struct, frozen=True):
    """How much of an invariant did not agree, and how much of that was not repaired."""

    invariant: str
    findings: int
    standing: int


async def reconcile_findings(db: Executor) -> list[Found]:
    """As of when each partition was last looked at."""
    return [Found(**dict(row)) for row in await db.fetch(QUERIES["reconcile_findings"])]


async def count_records(db: Executor, partition: int, after: int, through: int) -> int:
    return int(await db.fetchval(QUERIES["count_records"], partition, after, through))


async def rows_at_fault(
    db: Executor, query: str, partition: int, after: int, through: int
) -> list[dict[str, Any]]:
    """What one of the comparisons of rows finds between two positions."""
    return [dict(row) for row in await db.fetch(QUERIES[query], partition, after, through)]


async def recordless_keys(db: Executor, partition: int) -> list[UUID]:
    return [row["usage_id"] for row in await db.fetch(QUERIES["recordless_keys"], partition)]


async def wrong_purged(db: Executor, partition: int) -> tuple[int, int] | None:
    """How many records are gone from the seals, and how many were purged; None when as many."""
    row = await db.fetchrow(QUERIES["wrong_purged"], partition)
    return None if row is None else (row["gone"], row["purged"])


async def touched_accounts(
    db: Executor, partition: int, after: int, through: int
) -> list[tuple[UUID, UUID | None]]:
    rows = await db.fetch(QUERIES["touched_accounts"], partition, after, through)
    return [(row["user_id"], row["organization_id"]) for row in rows]


async def wrong_totals(db: Executor) -> list[WrongTotal]:
    return [WrongTotal(**dict(row)) for row in await db.fetch(QUERIES["wrong_totals"])]


async def counted(db: Executor, subjects: Sequence[str]) -> dict[tuple[str, str, datetime], int]:
    """Units by subject, usage type and start of the quota's period, open dead letters included."""
    rows = await db.fetch(QUERIES["counted"], subjects)
    return {(row["subject"], row["usage_type"], row["quota_period"]): row["units"] for row in rows}


async def subjects_of(db: Executor, identifier: UUID) -> list[str]:
    rows = await db.fetch(QUERIES["subjects_of"], identifier)
    return [row["subject"] for row in rows]


async def wrong_totals_of(
    db: Executor, subject: str, user_id: UUID | None, organization_id: UUID | None
) -> list[WrongTotal]:
    """Those of one subject; no user: a pool."""
    rows = await db.fetch(QUERIES["wrong_totals_of"], subject, user_id, organization_id)
    return [WrongTotal(subject=subject, **dict(row)) for row in rows]


async def set_total(db: Executor, total: WrongTotal) -> None:
    """Makes a total what its rows say. Only while holding the partition's cursor row."""
    await db.execute(
        QUERIES["set_total"],
        total.subject,
        total.usage_type,
        total.quota_period,
        total.expected,
        total.records,
    )
