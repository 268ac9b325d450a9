"""Running totals of what is to be invoiced."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.domain.invoice import Voided
from ledger.domain.usage import Terms
from ledger.store.queries import QUERIES


class WrongBillable(msgspec.Struct, frozen=True):
    """A running total that is not the sum of its rows; in quantities."""

    subscription_id: UUID
    billing_period: date
    plan_tier: str
    plan_version: int
    usage_type: str
    partition: int
    found: Decimal
    expected: Decimal
    records: int  # that add up to what is expected


async def add(
    db: Executor, partition: int, totals: Iterable[tuple[Terms, date, str, int, int]]
) -> None:
    """Adds (terms, billing_period, usage_type, units, records) to what is to be invoiced."""
    rows = sorted(
        (terms.subscription_id or b"", period, terms.plan_tier, terms.plan_version, *rest)
        for terms, period, *rest in totals
    )
    payers, *columns = zip(*rows, strict=True)
    await db.execute(
        QUERIES["add_billable"],
        partition,
        [one.hex() for one in payers],
        *(list(column) for column in columns),
    )


async def count(db: Executor) -> int:
    return int(await db.fetchval(QUERIES["count_billable"]))


async def wrong(db: Executor, payer: UUID | None = None) -> list[WrongBillable]:
    """Those of what a user or an organisation pays for, or of everything."""
    rows = await db.fetch(QUERIES["wrong_billable"], payer)
    return [WrongBillable(**dict(row)) for row in rows]


async def put(db: Executor, one: WrongBillable) -> None:
    """Makes a total what its rows say. Only while holding the partition's cursor row."""
    await db.execute(
        QUERIES["set_billable"],
        one.subscription_id,
        one.billing_period,
        one.plan_tier,
        one.plan_version,
        one.usage_type,
        one.partition,
        one.expected,
        one.records,
    )


async def voided(
    db: Executor, subscription_id: UUID
) -> dict[tuple[datetime, str, int, str], Voided]:
    """What came of usage that is on an invoice that was voided: by the start of its period, plan
    version and usage type."""
    return {
        (row["period_start"], row["plan_tier"], row["plan_version"], row["usage_type"]): Voided(
            row["written_off"], row["standing"]
        )
        for row in await db.fetch(QUERIES["voided_usage"], subscription_id)
    }
