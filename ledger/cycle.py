"""The billing cycle: periods end, and what is over is invoiced. Any number of workers.

1. close   a period that is over: what falls due, what is to be invoiced, an entry for the stream
2. wait    until the drain has passed that entry, and a grace for what comes late
3. invoice rate what was used; invoice, lines, audit event and credit in one transaction

Once the entry is drained, quotas to which something is left over are loaded anew (`ledger.grants`).

A crash anywhere is finished by the next look. Of two workers one holds the subscription's row.
"""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import structlog

from ledger import store
from ledger.db import TOO_LONG, UNAVAILABLE, Connection
from ledger.domain.invoice import Draft
from ledger.domain.money import amount_text
from ledger.invoicing import Drafted, draft_of
from ledger.rollover import reload_quotas, roll
from ledger.store.billing_periods import BillingPeriod
from ledger.store.invoices import Invoice
from ledger.store.subscriptions import Subscription
from ledger.supersede import Superseder

log = structlog.get_logger()

BATCH = 100
# Of one subscription in one transaction: a clock that was moved by years ends hundreds.
MOST_PERIODS = 12
DUE = timedelta(days=30)


class Cycle:
    """`grace`: how long after a period's end its invoice waits for usage that comes late.
    `park_above`: the total above which an invoice waits for a person, in its currency."""

    def __init__(
        self,
        connection: Connection,
        superseder: Superseder,
        *,
        grace: timedelta,
        park_above: Decimal,
    ) -> None:
        self._db = connection
        self._superseder = superseder
        self._grace = grace
        self._park_above = park_above

    async def run_once(self, now: datetime) -> int:
        """Closes, rolls over and invoices what is due; how many steps were made."""
        steps = 0
        for subscription_id in await store.billing_periods.to_close(self._db, now, BATCH):
            steps += await self._apart(subscription_id, self._close(subscription_id, now))
        for period_id, subscription_id in await store.grants.rolling(self._db, BATCH):
            steps += await self._apart(subscription_id, self._roll_over(period_id, subscription_id))
        for period_id, subscription_id in await store.billing_periods.due(self._db, now, BATCH):
            work = self._invoice(period_id, subscription_id, now)
            steps += await self._apart(subscription_id, work)
        return steps

    async def _apart(self, subscription_id: UUID, work: Awaitable[bool]) -> bool:
        """One subscription that cannot be closed or invoiced must not hold up all others: it is
        tried again later and later, so that many of them do not fill every batch. What takes too
        long is one of these: where Postgres hangs as a whole, noting it fails as well."""
        try:
            return await work
        except Exception as error:
            if isinstance(error, UNAVAILABLE) and not isinstance(error, TOO_LONG):
                raise
            # Never the error's own text: it may quote a row.
            reason = type(error).__name__
            log.error("not_billed", subscription_id=str(subscription_id), reason=reason)
            await store.billing_state.failed(self._db, subscription_id, reason)
            return False

    async def _close(self, subscription_id: UUID, now: datetime) -> bool:
        async with self._db.transaction():
            stored = await store.subscriptions.hold_by_id(self._db, subscription_id)
            if stored is None:
                return False
            owed = await roll(self._db, stored, now, self._grace, most=MOST_PERIODS)
            await store.billing_state.mended(self._db, subscription_id)
        for outbox_id in owed:
            await self._superseder.reach(self._db, outbox_id)
        return bool(owed)

    async def _roll_over(self, period_id: UUID, subscription_id: UUID) -> bool:
        owed = await reload_quotas(self._db, period_id, subscription_id)
        if owed is None:
            return False
        await store.billing_state.mended(self._db, subscription_id)
        await self._superseder.reach(self._db, owed)
        return True

    async def _invoice(self, period_id: UUID, subscription_id: UUID, now: datetime) -> bool:
        # One snapshot: what is summed and how far it has been drained must be of the same instant.
        async with self._db.transaction(isolation="repeatable_read"):
            stored = await store.subscriptions.hold_by_id(self._db, subscription_id)
            if stored is None:
                return False
            period = await store.billing_periods.hold(self._db, period_id)
            if period is None:
                return False
            await store.billing_periods.take_time(self._db)
            drafted = await draft_of(self._db, stored, period)
            await self._write(stored, period, drafted, now)
            await store.billing_periods.close(self._db, period_id, now)
            await store.billing_state.mended(self._db, subscription_id)
        return True

    async def _write(
        self, stored: Subscription, period: BillingPeriod, drafted: Drafted, now: datetime
    ) -> None:
        draft = drafted.draft
        for one, quantity in drafted.billed:
            await store.invoices.note_billed(self._db, stored.subscription_id, one, quantity)
        if not draft.lines:
            return
        invoice = await self._made(stored, period, draft, now)
        await store.invoices.insert(self._db, invoice)
        lines = [(uuid4(), line, drafted.behind(line)) for line in draft.lines]
        await store.invoices.insert_lines(self._db, invoice.invoice_id, lines)
        await store.invoices.set_credit(self._db, stored.subscription_id, draft.credit_carried)
        details = {
            "invoice_id": str(invoice.invoice_id),
            "subscription_id": str(stored.subscription_id),
            "number": invoice.number,
            "total": amount_text(draft.total, draft.currency),
            "currency": draft.currency,
        }
        await store.insert_audit_event(
            self._db,
            f"invoice_{'parked' if invoice.parked else 'issued' if invoice.number else 'kept'}",
            "ledger",
            details,
            now,
            user_id=stored.user_id,
            organization_id=stored.organization_id,
        )
        if invoice.parked:
            log.error("invoice_parked", invoice_id=str(invoice.invoice_id), reason=invoice.parked)

    async def _made(
        self, stored: Subscription, period: BillingPeriod, draft: Draft, now: datetime
    ) -> Invoice:
        parked = None
        if draft.total > self._park_above:
            parked = "the total is above INVOICE_PARK_ABOVE"
        number = None
        if draft.is_issued and not parked:
            number = await store.invoices.take_number(self._db, draft.currency, draft.total)
        return Invoice(
            invoice_id=uuid4(),
            billing_period_id=period.billing_period_id,
            number=number,
            subscription_id=stored.subscription_id,
            user_id=stored.user_id,
            organization_id=stored.organization_id,
            scope=stored.scope,
            period_start=period.period_start,
            period_end=period.period_end,
            currency=draft.currency,
            status="draft" if parked else "open" if draft.total else "paid",
            subtotal=draft.subtotal,
            total=draft.total,
            parked=parked,
            issued_at=now if number else None,
            due_at=now + DUE if number else None,
            created_at=now,
        )
