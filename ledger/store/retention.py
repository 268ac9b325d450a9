"""Months of usage records: what keeps them, what they come to, and dropping them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.domain.retention import BOOKS_CURRENCY, Billed, Keeper, month_after
from ledger.domain.seal import Sealed
from ledger.store.queries import QUERIES


class Purge(msgspec.Struct, frozen=True):
    """A month that was purged, and the name of the archive that has its records."""

    month: date
    archive: str


class LeftSeal(msgspec.Struct, frozen=True):
    """A seal that a purge leaves some of its records to."""

    partition: int
    first_position: int
    last_position: int
    head: bytes
    version: int
    marks: bytes


async def hold_purge(db: Executor) -> bool:
    """Whether this session is the one that purges; until it ends."""
    return bool(await db.fetchval(QUERIES["hold_purge"]))


async def months_before(db: Executor, before: date) -> list[date]:
    """Months that the ledger has a table of, oldest first."""
    return [row["month"] for row in await db.fetch(QUERIES["months_before"], before)]


async def keepers(db: Executor, month: date) -> list[Keeper]:
    """Whose records a month has, without what is known of their books."""
    rows = await db.fetch(QUERIES["keepers"], month, month_after(month))
    return [Keeper(**dict(row)) for row in rows]


async def undecided_before(db: Executor, day: date) -> int:
    """Dead letters and corrections of before a day that are still open."""
    return int(await db.fetchval(QUERIES["undecided_before"], day))


async def billed(db: Executor, organizations: Sequence[UUID]) -> dict[UUID, list[Billed]]:
    """What was billed to each organisation that was billed anything."""
    found: dict[UUID, list[Billed]] = defaultdict(list)
    for row in await db.fetch(QUERIES["billed_of_organizations"], organizations, BOOKS_CURRENCY):
        found[row["organization_id"]].append(Billed(row["until"], row["amount"]))
    return found


async def ends(db: Executor, month: date) -> dict[int, int]:
    """The last place of a month's records in the order of each partition that has some."""
    rows = await db.fetch(QUERIES["month_ends"], month, month_after(month))
    return {row["partition"]: row["position"] for row in rows}


async def hold_month(db: Executor, month: date) -> None:
    """No record comes to the month, or goes, until this transaction ends."""
    await db.execute(QUERIES["hold_usage_month"], month)


async def hold_what_keeps(db: Executor) -> None:
    """Nobody puts a hold or asks for a correction until this transaction ends: not for long."""
    await db.execute(QUERIES["hold_what_keeps"])


async def insert(
    db: Executor, purge: Purge, records: int, sha256: str, actor: str, now: datetime
) -> None:
    """Notes a purge, and the sums that are kept of its records."""
    await db.execute(
        QUERIES["insert_purge"], purge.month, records, purge.archive, sha256, actor, now
    )
    await db.execute(QUERIES["keep_sums"], purge.month, month_after(purge.month))


async def note_kept(db: Executor, month: date) -> list[LeftSeal]:
    """Notes at each seal how many records it is left with; the seals that are left with some."""
    rows = await db.fetch(QUERIES["note_kept"], month, month_after(month))
    return [LeftSeal(**dict(row)) for row in rows]


async def set_kept(db: Executor, seal: LeftSeal, kept: Sealed) -> None:
    await db.execute(QUERIES["set_kept"], seal.partition, seal.last_position, *kept)


async def drop(db: Executor, month: date) -> None:
    """Last in the transaction: everything that reads records waits from here on."""
    await db.execute(QUERIES["wait_briefly"])
    await db.execute(QUERIES["drop_usage_month"], month)


async def is_purged(db: Executor, billing_period: date) -> bool:
    """Whether records of a billing period that begins on a local day may have been purged."""
    return bool(await db.fetchval(QUERIES["is_purged"], billing_period))


async def of_line(db: Executor, line_id: UUID) -> list[Purge]:
    """Months with records of an invoice line's terms that were purged."""
    return _purges(await db.fetch(QUERIES["purges_of_line"], line_id))


async def of_organization(db: Executor, organization_id: UUID) -> list[Purge]:
    """Months with records of an organisation that were purged."""
    return _purges(await db.fetch(QUERIES["purges_of_organization"], organization_id))


def _purges(rows: Sequence[Any]) -> list[Purge]:
    return [Purge(row["month"], row["archive"]) for row in rows]
