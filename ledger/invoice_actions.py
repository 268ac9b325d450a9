"""What finance decides about an invoice: issue one that was parked, void one, credit some of it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from ledger import clock, store
from ledger.cycle import DUE
from ledger.db import Executor, Pool
from ledger.domain.line import Line
from ledger.domain.money import amount_text, is_whole
from ledger.once import Once, claim, keep
from ledger.store.invoices import Invoice
from ledger.stripe_calls import owe_void


class NoInvoice(Exception):
    """There is none of this id."""


class NotPossible(Exception):
    """The invoice's state, or the amount, does not allow it; the message says why."""


class InvoiceActions:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def issue(self, invoice_id: UUID, *, actor: str, now: datetime) -> Invoice:
        """Gives a parked invoice its number. Raises `NoInvoice`, `NotPossible`."""
        async with self._pool.acquire() as db, db.transaction():
            found = await _held(db, invoice_id)
            if found.status != "draft":
                raise NotPossible("only a parked invoice is issued by hand")
            number = await store.invoices.take_number(db, found.currency, found.total)
            await store.invoices.issue(db, invoice_id, number, now, now + DUE)
            return await _done(db, found, "issued", actor, now, {})

    async def void(self, invoice_id: UUID, reason: str, *, actor: str, now: datetime) -> Invoice:
        """Nothing of it is to be paid. Its usage stays billed: it is written off, not invoiced
        again. Credit that it used is there again. Raises `NoInvoice`, `NotPossible`."""
        async with self._pool.acquire() as db, db.transaction():
            found = await _held(db, invoice_id)
            if found.status not in ("draft", "open"):
                raise NotPossible(f"an invoice that is {found.status} cannot be voided")
            await write_off(db, found)
            # By the real time, which a test clock does not move: Stripe is not in the future.
            await owe_void(db, invoice_id, clock.now())
            return await _done(db, found, "voided", actor, now, {"reason": reason})

    async def credit(
        self,
        invoice_id: UUID,
        amount: Decimal,
        reason: str,
        *,
        actor: str,
        now: datetime,
        once: Once | None = None,
    ) -> Invoice:
        """Gives back some of what was invoiced, as a line of the next invoice; all credits of an
        invoice together are at most its total. Raises `NoInvoice`, `NotPossible`,
        `ledger.once.Replayed`, `ledger.once.KeyReused`."""
        async with self._pool.acquire() as db, db.transaction():
            await claim(db, once, now)
            found = await _held(db, invoice_id)
            if found.number is None or found.status == "void":
                raise NotPossible("only an invoice that was issued can be credited")
            if amount <= 0 or not is_whole(amount, found.currency):
                raise NotPossible("the amount must be more than 0, in whole minor units")
            if found.credited + amount > found.total:
                raise NotPossible("all credits together would be more than the invoice")
            await store.invoices.add_credited(db, invoice_id, amount)
            line = Line(kind="credit", description=f"credit for {found.number}", amount=-amount)
            await store.subscriptions.add_pending_line(db, found.subscription_id, line, now)
            details = {"amount": amount_text(amount, found.currency), "reason": reason}
            done = await _done(db, found, "credited", actor, now, details)
            await keep(db, once, done)
            return done


async def write_off(db: Executor, invoice: Invoice) -> None:
    """Voids an invoice that is held; credit that it used is there again. Raises `NotPossible`."""
    if invoice.credited:
        raise NotPossible("it has been credited: voided as well, that would be given twice")
    carried = invoice.subtotal - invoice.total
    if not await store.invoices.return_credit(db, invoice.subscription_id, carried):
        raise NotPossible("what it carried to the next invoice has been used already")
    await store.invoices.void(db, invoice.invoice_id)


async def _held(db: Executor, invoice_id: UUID) -> Invoice:
    found = await store.invoices.hold(db, invoice_id)
    if found is None:
        raise NoInvoice
    return found


async def _done(
    db: Executor, invoice: Invoice, what: str, actor: str, now: datetime, details: dict[str, str]
) -> Invoice:
    await store.insert_audit_event(
        db,
        f"invoice_{what}",
        actor,
        {"invoice_id": str(invoice.invoice_id), **details},
        now,
        user_id=invoice.user_id,
        organization_id=invoice.organization_id,
    )
    found = await store.invoices.find(db, invoice.invoice_id)
    assert found is not None, "it is held"
    return found
