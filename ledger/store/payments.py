"""What became of invoices, and those that are owed."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from ledger.db import Executor
from ledger.domain.dunning import Owed, Step
from ledger.domain.payment import InvoiceStatus
from ledger.store.invoices import Invoice
from ledger.store.queries import QUERIES


async def hold(db: Executor, stripe_invoice_id: str, ours: UUID | None) -> Invoice | None:
    """The invoice, locked; by our own id while Stripe's is not known here."""
    row = await db.fetchrow(QUERIES["hold_paid_invoice"], stripe_invoice_id, ours)
    return None if row is None else Invoice(**dict(row))


async def put(db: Executor, invoice_id: UUID, status: InvoiceStatus, amount_paid: Decimal) -> None:
    await db.execute(QUERIES["set_payment"], invoice_id, status, amount_paid)


async def owed(db: Executor, invoice_id: UUID) -> Owed | None:
    row = await db.fetchrow(QUERIES["dunning"], invoice_id)
    return None if row is None else Owed(**dict(row))


async def put_owed(db: Executor, invoice: Invoice, owed: Owed) -> None:
    await db.execute(
        QUERIES["put_dunning"],
        invoice.invoice_id,
        invoice.subscription_id,
        owed.owed_since,
        owed.step,
        owed.step_since,
    )


async def end_owed(db: Executor, invoice_id: UUID, now: datetime) -> None:
    """Nothing is owed any more, or hoped for."""
    await db.execute(QUERIES["end_dunning"], invoice_id, now)


async def steps(db: Executor, subscription_id: UUID) -> list[Step]:
    """Where each invoice stands that a subscription owes."""
    return [row["step"] for row in await db.fetch(QUERIES["dunning_steps"], subscription_id)]


async def count(db: Executor, outcome: str, payments: int = 1) -> None:
    await db.execute(QUERIES["count_payment"], outcome, payments)


async def outcomes(db: Executor) -> dict[str, int]:
    """How many payments failed, and so on, ever."""
    return {row["outcome"]: row["payments"] for row in await db.fetch(QUERIES["payment_outcomes"])}


async def owed_by_step(db: Executor) -> dict[str, int]:
    """How many invoices are owed now."""
    return {row["step"]: row["invoices"] for row in await db.fetch(QUERIES["dunning_counts"])}
