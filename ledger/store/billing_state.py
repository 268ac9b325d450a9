"""How invoicing is going: what was issued, what waits, what failed."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.store.queries import QUERIES


class Failures(msgspec.Struct, frozen=True):
    """How many subscriptions could not be closed or invoiced, since how long at most, and the
    kinds of error."""

    subscriptions: int
    longest_s: int
    reasons: list[str]


async def failed(db: Executor, subscription_id: UUID, reason: str) -> None:
    """It could not be closed or invoiced: left alone for a while, longer each time."""
    await db.execute(QUERIES["note_billing_failure"], subscription_id, reason)


async def mended(db: Executor, subscription_id: UUID) -> None:
    await db.execute(QUERIES["forget_billing_failure"], subscription_id)


async def failures(db: Executor) -> Failures:
    return Failures(**dict(await db.fetchrow(QUERIES["billing_failures"])))


async def issued_totals(db: Executor) -> dict[str, Decimal]:
    """What was ever issued, by currency."""
    return {row["currency"]: row["total"] for row in await db.fetch(QUERIES["issued_totals"])}


async def count_parked(db: Executor) -> int:
    """Invoices that wait for a person."""
    return int(await db.fetchval(QUERIES["count_parked"]))
