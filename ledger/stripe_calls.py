"""What is owed to Stripe, and what a person decides of it; nothing here asks Stripe.

An invoice that is open here and has no call is owed: whoever issues one need not think of Stripe,
and none can be missed; but for those whose usage Stripe counts itself (`ledger.metering`). The
calls of one are written at once, frozen, after all that its payer is owed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec
import structlog

from ledger import store
from ledger.db import Connection, Executor
from ledger.domain.period import Span
from ledger.domain.stripe_invoice import (
    Bill,
    BilledLine,
    NotSendable,
    customer_call,
    invoice_calls,
    void_call,
)
from ledger.store.invoices import Invoice, InvoiceLine
from ledger.store.stripe_calls import ParkedCall, Payer

log = structlog.get_logger()

BATCH = 50  # invoices that are held in one transaction: one may have a hundred lines
# Of a draft: for a customer whom this account of Stripe does not have.
NO_CUSTOMER = "refused: resource_missing"
_OF_CUSTOMER = ("invoice", "meter_event")  # that say for whom they are


class NotParked(Exception):
    """There is no such parked call, or it cannot be decided so; the message says why."""


async def owe(db: Connection, now: datetime) -> int:
    """Owes what was issued and is not owed yet; how many invoices. 0 while another does it."""
    async with db.transaction():
        if not await store.stripe_calls.lock_owing(db):
            return 0
        invoices = await store.stripe_calls.unowed(db, BATCH)
        lines = await store.invoices.lines(db, [one.invoice_id for one in invoices])
        for one in invoices:
            await _owe(db, one, lines[one.invoice_id], now)
    return len(invoices)


async def _owe(db: Executor, invoice: Invoice, lines: list[InvoiceLine], now: datetime) -> None:
    payer, invoice_id = Payer.of(invoice), invoice.invoice_id
    try:
        calls = invoice_calls(_bill(invoice, payer, lines))
    except NotSendable:
        call_id = await store.stripe_calls.insert_unsendable(db, payer, invoice_id, now)
        assert call_id is not None, "it was owed by no call, and is held"
        await tell_parked(db, call_id, payer, invoice_id, "invoice", "not_sendable", now)
        return
    await store.stripe_calls.insert(db, payer, None, [customer_call(payer.payer_id)], now)
    await store.stripe_calls.insert(db, payer, invoice_id, calls, now)


async def owe_void(db: Executor, invoice_id: UUID, now: datetime) -> None:
    """What Stripe is to be told of an invoice that is voided, in the transaction that does so.

    Nothing, if no try has begun. Else its draft may be there: it is finished, so that Stripe has
    the number too, and then voided."""
    draft = await store.stripe_calls.hold_draft(db, invoice_id)
    if draft is None or draft.is_skipped:
        return
    if not draft.is_done and draft.attempt.since is None:
        await store.stripe_calls.skip_invoice(db, invoice_id, "voided", now)
        return
    await store.stripe_calls.insert(db, draft.payer, invoice_id, [void_call(invoice_id)], now)


async def retry(db: Connection, call_id: int, *, actor: str, now: datetime) -> ParkedCall:
    """Has a parked call tried again, now that its cause is mended. Raises `NotParked`."""
    async with db.transaction():
        found = await _parked(db, call_id)
        if found.is_unsendable:
            kept = await store.stripe_calls.forget(db, call_id)
        else:
            # Stripe keeps a refusal under its key: another one, once nothing is found there.
            attempt = msgspec.structs.replace(found.attempt, key_spent=True)
            kept = await store.stripe_calls.unpark(db, call_id, attempt, now)
            if found.operation in _OF_CUSTOMER and found.last_error == NO_CUSTOMER:
                await store.stripe_calls.redo_customer(db, found.payer_id, now)
        if not kept:
            raise NotParked(f"call {call_id} is not parked")
        await _decided(db, "stripe_call_retried", found, actor, now, {})
    return found


async def skip(
    db: Connection, call_id: int, reason: str, *, actor: str, now: datetime
) -> ParkedCall:
    """Lets the rest of an invoice be, or an event of usage: Stripe is asked nothing more of it.
    Raises `NotParked`."""
    async with db.transaction():
        found = await _parked(db, call_id)
        if found.operation == "meter_event":
            await store.stripe_calls.skip_call(db, call_id, now)
        elif found.invoice_id is None:
            raise NotParked(
                f"call {call_id} makes a customer, without whom no invoice can be sent: mend it in"
                " Stripe or give the organization its stripe_customer, then retry"
            )
        else:
            await store.stripe_calls.skip_invoice(db, found.invoice_id, "operator", now)
        await _decided(db, "stripe_call_skipped", found, actor, now, {"reason": reason})
    return found


async def tell_parked(
    db: Executor,
    call_id: int,
    payer: Payer,
    invoice_id: UUID | None,
    operation: str,
    error: str,
    now: datetime,
) -> None:
    """The audit event and the error line of a call that waits for a person from now on."""
    said = {
        "call_id": call_id,
        "invoice_id": None if invoice_id is None else str(invoice_id),
        "operation": operation,
        "reason": error,
    }
    await _audit(db, "stripe_call_parked", payer, "ledger", now, said)
    await store.stripe_state.count(db, "parked")
    log.error("stripe_call_parked", **said)


async def tell_delivered(
    db: Executor, payer: Payer, invoice_id: UUID, operation: str, stripe_id: str, now: datetime
) -> None:
    """The audit event of an invoice that is in Stripe, or voided there."""
    kind = "invoice_delivered" if operation == "finalize" else "invoice_void_delivered"
    said = {"invoice_id": str(invoice_id), "stripe_invoice_id": stripe_id}
    await _audit(db, kind, payer, "ledger", now, said)


async def _parked(db: Executor, call_id: int) -> ParkedCall:
    found = await store.stripe_calls.parked(db, call_id)
    if not found:
        raise NotParked(f"call {call_id} is not parked")
    return found[0]


async def _decided(
    db: Executor, kind: str, one: ParkedCall, actor: str, now: datetime, more: dict[str, str]
) -> None:
    said = {
        "call_id": one.call_id,
        "invoice_id": None if one.invoice_id is None else str(one.invoice_id),
        "operation": one.operation,
        "was": one.last_error,
        **more,
    }
    await _audit(db, kind, Payer(one.payer_id, one.scope), actor, now, said)


async def _audit(
    db: Executor, kind: str, payer: Payer, actor: str, now: datetime, said: Mapping[str, object]
) -> None:
    is_user = payer.scope == "user"
    await store.insert_audit_event(
        db,
        kind,
        actor,
        dict(said),
        now,
        user_id=payer.payer_id if is_user else None,
        organization_id=None if is_user else payer.payer_id,
    )


def _bill(invoice: Invoice, payer: Payer, lines: list[InvoiceLine]) -> Bill:
    assert invoice.number and invoice.issued_at and invoice.due_at, "it was issued"
    return Bill(
        invoice_id=invoice.invoice_id,
        payer_id=payer.payer_id,
        number=invoice.number,
        currency=invoice.currency,
        total=invoice.total,
        days_until_due=(invoice.due_at - invoice.issued_at).days,
        lines=tuple(_billed(one) for one in lines),
    )


def _billed(line: InvoiceLine) -> BilledLine:
    span = None
    if line.period_start is not None and line.period_end is not None:
        span = Span(line.period_start, line.period_end)
    return BilledLine(
        line_id=line.line_id,
        kind=line.kind,
        amount=line.amount,
        usage_type=line.usage_type,
        quantity=line.quantity,
        span=span,
    )
