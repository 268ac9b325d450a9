"""Comparing invoices with Stripe: our side of it, and when that was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.domain.payment import InvoiceStatus
from ledger.domain.stripe_compare import OurInvoice
from ledger.store.queries import QUERIES

Kind = Literal["missing", "extra", "different", "missed"]
KINDS: tuple[Kind, ...] = Kind.__args__  # type: ignore[attr-defined]


class Unreceived(msgspec.Struct, frozen=True):
    """An event that was never received, and how its invoice is here. `is_owed`: it is, or was."""

    event_id: str
    invoice_id: UUID
    number: str | None
    status: InvoiceStatus
    is_owed: bool


class ReconcileState(msgspec.Struct, frozen=True):
    """What did not agree when everything was last compared, so many seconds ago. `missed`: events
    that were not received; `missed_ever`: of all times."""

    missing: int
    extra: int
    different: int
    missed: int
    missed_ever: int
    age_s: int

    @property
    def findings(self) -> dict[Kind, int]:
        return {kind: getattr(self, kind) for kind in KINDS}


async def claim(db: Executor, now: datetime, until: datetime) -> int | None:
    """The number of the claim; None when it is not due, or another's."""
    found: int | None = await db.fetchval(QUERIES["claim_stripe_reconcile"], now, until)
    return found


async def put_off(db: Executor, claimed: int, until: datetime) -> None:
    """It is nobody else's before then. Nothing, when another has claimed it since."""
    await db.execute(QUERIES["put_off_stripe_reconcile"], claimed, until)


async def note(
    db: Executor, now: datetime, next_at: datetime, found: Mapping[Kind, int], *, completed: bool
) -> None:
    """So many findings of each kind; the next look is due then."""
    counts = [found[kind] for kind in KINDS]
    await db.execute(QUERIES["stripe_reconciled"], now, next_at, *counts, completed)


async def state(db: Executor) -> ReconcileState | None:
    """None where it was never begun: no ledger has a key."""
    row = await db.fetchrow(QUERIES["stripe_reconcile_state"])
    return None if row is None else ReconcileState(**dict(row))


async def begin_seeing(db: Executor) -> None:
    """Nothing was met at Stripe yet; of this session."""
    await db.execute(QUERIES["make_stripe_seen"])
    await db.execute(QUERIES["forget_stripe_seen"])


async def saw(db: Executor, stripe_ids: Sequence[str]) -> None:
    await db.execute(QUERIES["add_stripe_seen"], stripe_ids)


async def invoices(
    db: Executor,
    stripe_ids: Sequence[str] = (),
    ours: Sequence[UUID] = (),
    numbers: Sequence[str] = (),
) -> list[OurInvoice]:
    """Ours with one of these ids or numbers."""
    rows = await db.fetch(QUERIES["invoices_at_stripe"], stripe_ids, ours, numbers)
    return [OurInvoice(**dict(row)) for row in rows]


async def not_seen(
    db: Executor,
    since: datetime,
    until: datetime | None,
    after: str,
    most: int,
    *,
    unsettled: bool,
) -> list[UUID]:
    """The next invoices by number that were not met at Stripe, of those issued in
    `[since, until)`; `unsettled`: of those not settled as well."""
    query = QUERIES["invoices_not_seen"]
    rows = await db.fetch(query, since, until, unsettled, after, most)
    return [row["invoice_id"] for row in rows]


async def customers(db: Executor, payers: Sequence[UUID]) -> dict[UUID, str | None]:
    """Stripe's ids of the customers that these payers are; None while one is being made."""
    rows = await db.fetch(QUERIES["customers_at_stripe"], payers)
    return {row["ours"]: row["stripe_id"] for row in rows}


async def unreceived(db: Executor, told: Mapping[str, str]) -> list[Unreceived]:
    """Which of these events, each with Stripe's id of the invoice, nobody has brought here; of
    invoices of ours."""
    query = QUERIES["unreceived_stripe_events"]
    rows = await db.fetch(query, list(told), list(told.values()))
    return [Unreceived(**dict(row)) for row in rows]


async def want_look(db: Executor, stripe_invoice_id: str, now: datetime) -> None:
    """Has an invoice looked at as if something was told of it."""
    await db.execute(QUERIES["want_stripe_look"], stripe_invoice_id, now)
