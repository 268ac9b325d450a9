"""Whether Stripe gets invoices or usage: decided where a ledger starts, held by who goes by it."""

from __future__ import annotations

from datetime import datetime

import structlog

from ledger import store
from ledger.db import Connection
from ledger.settings import StripeMode

log = structlog.get_logger()


async def set_mode(db: Connection, mode: StripeMode, now: datetime) -> None:
    """From now on usage gets into Stripe so. What is on an invoice by now gets there by that, what
    is in an event by the event."""
    async with db.transaction():
        if not await store.metering.switch(db, mode, now):
            return
        if mode == "meters":
            await store.metering.leave_invoiced(db)
        await store.insert_audit_event(db, "stripe_mode_changed", "ledger", {"mode": mode}, now)
    log.warning("stripe_mode_changed", mode=mode)
