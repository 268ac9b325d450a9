"""The audit event of what became of an invoice; and how often that was, for the metrics."""

from __future__ import annotations

from datetime import datetime

import structlog

from ledger import store
from ledger.db import Executor
from ledger.store.invoices import Invoice

log = structlog.get_logger()

_COUNTED = {
    "payment_failed": "failed",
    "payment_contradicts": "contradicts",
    "invoice_paid": "paid",
    "invoice_voided": "void",
    "invoice_uncollectible": "uncollectible",
}
_NEEDS_CARE = ("payment_failed", "payment_contradicts", "invoice_uncollectible")


async def tell(db: Executor, invoice: Invoice, kind: str, now: datetime, **said: str) -> None:
    """In the transaction that does it."""
    details = {
        "invoice_id": str(invoice.invoice_id),
        "subscription_id": str(invoice.subscription_id),
        "number": invoice.number,
        **said,
    }
    await store.insert_audit_event(
        db,
        kind,
        "stripe",
        details,
        now,
        user_id=invoice.user_id,
        organization_id=invoice.organization_id,
    )
    if kind in _COUNTED:
        await store.payments.count(db, _COUNTED[kind])
    if kind in _NEEDS_CARE:
        log.error(kind, **details)
