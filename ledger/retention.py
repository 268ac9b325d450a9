"""Purges months of usage records that were kept long enough; says what keeps the others.

A month goes whole, once everybody in it lets it go, and the oldest go first. Its records are in an
archive by then (`Archived`), and what they summed to stays in `purged_usage`: totals, invoices and
seals go on to be compared. Nothing but usage records is ever purged: invoices, subscriptions, plan
versions and audit events stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from uuid import UUID

import msgspec

from ledger import store
from ledger.db import Connection, Executor
from ledger.domain.retention import (
    Refusal,
    access_to_books_until,
    month_after,
    refusals,
)
from ledger.domain.seal import Sealed, seal_left
from ledger.domain.usage import at_ms
from ledger.store.export import Sums
from ledger.store.retention import LeftSeal, Purge


class Archived(msgspec.Struct, frozen=True):
    """An archive of a month, read back: its name, what its records sum to, its manifest's hash."""

    archive: str
    sums: Sums
    sha256: str


class Kept(Exception):
    """A month may not be purged (any more)."""

    def __init__(self, found: Sequence[Refusal]) -> None:
        super().__init__()
        self.refusals = found


class NotArchived(Exception):
    """What is in the archive is not what is in the ledger."""


async def kept(db: Executor, month: date, now: datetime) -> list[Refusal]:
    """Everything that keeps a month."""
    today = now.astimezone(UTC).date()
    found = await store.retention.keepers(db, month)
    named = [one.organization_id for one in found if one.organization_id is not None]
    books = await books_until(db, named)
    known = [
        msgspec.structs.replace(one, books_until=books.get(one.organization_id))
        if one.organization_id is not None
        else one
        for one in found
    ]
    told = refusals(month, known, today)
    if await store.retention.undecided_before(db, month_after(month)):
        told.append(Refusal(month, None, "unsettled", None))
    return told


async def books_until(db: Executor, organizations: Sequence[UUID]) -> dict[UUID, date]:
    """Until when the books of organisations must be open; of those whose must, or had to, be."""
    billed = await store.retention.billed(db, organizations)
    ends = {one: access_to_books_until(found) for one, found in billed.items()}
    return {one: end for one, end in ends.items() if end is not None}


async def purge(
    db: Connection, month: date, archived: Archived, *, actor: str, now: datetime
) -> None:
    """Drops a month whose records are archived, in one transaction. Raises `Kept`, `NotArchived`
    or what Postgres does: then it is all there."""
    async with db.transaction():
        await store.retention.hold_month(db, month)
        if await store.export.sums(db, "month", month) != archived.sums:
            raise NotArchived
        done = Purge(month, archived.archive)
        await store.retention.insert(db, done, archived.sums.records, archived.sha256, actor, now)
        left = await store.retention.note_kept(db, month)
        for one in left:
            await store.retention.set_kept(db, one, await _sealed(db, month, one))
        # Only now: what takes long is done, and nobody can put a hold meanwhile.
        await store.retention.hold_what_keeps(db)
        if found := await kept(db, month, now):
            raise Kept(found)
        await store.insert_audit_event(db, "usage_purged", actor, _details(month, archived), now)
        await store.retention.drop(db, month)


async def _sealed(db: Connection, month: date, one: LeftSeal) -> Sealed:
    """What covers the rest of a seal: a batch of the drain may lie across the end of a month."""
    decimals = await store.usage_types(db)
    left = {}
    async for position, record in store.seals.sealed_records(
        db, one.partition, one.first_position - 1, decimals
    ):
        if position > one.last_position:
            break
        if at_ms(record.recorded_at).date().replace(day=1) != month:
            left[position] = record
    return seal_left(
        one.head,
        left,
        partition=one.partition,
        first=one.first_position,
        last=one.last_position,
        version=one.version,
        marks=one.marks,
    )


async def refused(
    db: Executor, before: date, found: Sequence[Refusal], *, actor: str, now: datetime
) -> None:
    """Notes that a purge was asked for and not made."""
    ids = sorted({str(one.organization_id) for one in found if one.organization_id is not None})
    details = {"before": before.isoformat(), "months": len({one.month for one in found})}
    reasons = sorted({one.reason for one in found})
    await store.insert_audit_event(
        db,
        "usage_purge_refused",
        actor,
        {**details, "reasons": reasons, "organizations": ids[:100]},
        now,
    )


def _details(month: date, archived: Archived) -> dict[str, object]:
    return {
        "month": f"{month:%Y-%m}",
        "archive": archived.archive,
        "sha256": archived.sha256,
        "records": archived.sums.records,
        "quantities": {name: f"{one.normalize():f}" for name, one in archived.sums.sums.items()},
    }
