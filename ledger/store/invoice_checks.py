"""Comparing invoices with themselves and with what was used."""

from __future__ import annotations

from typing import Any, Literal

from ledger.db import Executor
from ledger.store.queries import QUERIES

Check = Literal[
    "wrong_sums",
    "wrong_numbers",
    "open_periods",
    "wrong_billed",
    "misplaced_records",
    "never_invoiced",
]


async def at_fault(db: Executor, check: Check) -> list[dict[str, Any]]:
    """What one of the comparisons finds, over all invoices."""
    return [dict(row) for row in await db.fetch(QUERIES[check])]


async def count(db: Executor) -> int:
    return int(await db.fetchval(QUERIES["count_invoices"]))


async def count_line_usage(db: Executor) -> int:
    """How many lines are about records of a partition; of all partitions."""
    return int(await db.fetchval(QUERIES["count_line_usage"]))
