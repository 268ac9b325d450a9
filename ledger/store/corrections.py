"""Corrections of usage that were asked for, and the records that they correct."""

from __future__ import annotations

from datetime import date, datetime
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.store.queries import QUERIES


class Original(msgspec.Struct, frozen=True):
    """A usage record, as far as a correction of it depends on it; `units` as it was recorded."""

    usage_id: UUID
    user_id: UUID
    organization_id: UUID | None
    usage_type: str
    units: int
    occurred_at: datetime
    billing_period: date
    quota_period: datetime
    pool_period: datetime | None
    subscription_id: UUID | None
    plan_tier: str
    plan_version: int
    reversal_of: UUID | None
    partition: int
    decimal_places: int


class Correction(msgspec.Struct, frozen=True):
    """What was asked for; `net_units` is what is left of the original after it. `booked`: it is a
    usage record. `letter`: the status of its dead letter, if the drain could not write it."""

    usage_id: UUID
    original_id: UUID
    idempotency_key: str
    fingerprint: bytes
    units: int
    net_units: int
    recorded_by: str
    booked: bool = False
    letter: str | None = None


async def original(db: Executor, usage_id: UUID) -> Original | None:
    """A record that has become a row."""
    row = await db.fetchrow(QUERIES["original"], usage_id)
    return None if row is None else Original(**dict(row))


async def hold_original(db: Executor, usage_id: UUID) -> None:
    """Keeps others from correcting the record until the transaction ends."""
    await db.execute(QUERIES["hold_original"], usage_id)


async def is_parked(db: Executor, usage_id: UUID) -> bool:
    """Whether the record's entry is an open dead letter."""
    return bool(await db.fetchval(QUERIES["is_parked"], usage_id))


async def corrected(db: Executor, original_id: UUID, but_for: UUID) -> int:
    """Units of all corrections of a record, drained or not, but for one."""
    return int(await db.fetchval(QUERIES["corrected"], original_id, but_for))


async def insert(db: Executor, one: Correction, claimed_s: int) -> bool:
    """Asks for a correction, which the caller sends within so many seconds; False when its usage
    id is taken."""
    found = await db.fetchval(
        QUERIES["insert_correction"], one.usage_id, one.original_id, one.idempotency_key,
        one.fingerprint, one.units, one.net_units, one.recorded_by, claimed_s,
    )  # fmt: skip
    return found is not None


async def find(db: Executor, usage_id: UUID) -> Correction | None:
    row = await db.fetchrow(QUERIES["correction"], usage_id)
    return None if row is None else Correction(**dict(row))


async def claim(db: Executor, usage_id: UUID, for_s: int) -> bool:
    """Before it is sent once more; False when it is done, or was withdrawn."""
    return await db.fetchval(QUERIES["claim_correction"], usage_id, for_s) is not None


async def withdraw(db: Executor, usage_id: UUID) -> bool:
    """Takes back what was refused at its first sending; False when it was sent again since."""
    return await db.fetchval(QUERIES["withdraw_correction"], usage_id) is not None


async def due(db: Executor, most: int) -> list[UUID]:
    """Those that may have to be sent again."""
    return [row["usage_id"] for row in await db.fetch(QUERIES["due_corrections"], most)]


async def done(db: Executor, usage_id: UUID) -> None:
    await db.execute(QUERIES["done_correction"], usage_id)
