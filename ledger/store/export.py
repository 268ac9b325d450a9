"""Rows as lines of JSON, and what they come to: of an organisation, or of a month."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from decimal import Decimal
from typing import Literal, NamedTuple
from uuid import UUID

from ledger.db import Connection, Executor
from ledger.store.queries import QUERIES

Table = Literal["usage", "invoices", "subscriptions", "corrections", "audit_events", "month"]

OF_ORGANIZATION: tuple[Table, ...] = (
    "usage", "invoices", "subscriptions", "corrections", "audit_events"
)  # fmt: skip
_PAGE = 2000  # rows in memory at once


class Sums(NamedTuple):
    """How many rows, and what they sum to by usage type or currency, where they sum to anything."""

    records: int
    sums: dict[str, Decimal]


async def read_patiently(db: Executor) -> None:
    """Lets this transaction be idle for as long as a disk takes."""
    await db.execute(QUERIES["read_patiently"])


async def lines(db: Connection, table: Table, of: UUID | date) -> AsyncIterator[str]:
    """The rows of an organisation, or of a month, each as a JSON object; within a transaction."""
    async for row in db.cursor(QUERIES[f"export_{table}"], of, prefetch=_PAGE):
        yield row["line"]


async def sums(db: Executor, table: Table, of: UUID | date) -> Sums:
    rows = await db.fetch(QUERIES[f"sum_{table}"], of)
    named = {row["name"]: row["total"] for row in rows if row["name"] is not None}
    return Sums(sum(row["records"] for row in rows), named)
