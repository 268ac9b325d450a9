"""Invariant I8: Stripe has one object of each of ours, and it says what ours says.

1. events     what Stripe has told and nobody brought here is told now: the ledger asks how it is
2. customers  one of each payer
3. invoices   Stripe's, page by page, beside ours; then ours that were not met
4. ledger     invoices beside usage (I6, I7)

Both sides go on meanwhile. So what does not agree is looked at again, ours before and after
Stripe's: only what stands still and does not agree is told of. Nothing is changed in Stripe, and no
transaction is open while Stripe is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from ledger import store
from ledger.db import Connection
from ledger.domain.stripe_compare import is_here
from ledger.domain.stripe_egress import NotOpaque
from ledger.domain.stripe_event import StripeEvent
from ledger.domain.stripe_invoice import mark_of, uuid_of
from ledger.reconcile.invoices import check_invoices
from ledger.reconcile.stripe_invoices import PATIENCE, Days, InvoicesBeside
from ledger.reconcile.stripe_report import Disagreement, StripeReport
from ledger.stripe_failures import KeyRefused, StripeFailure
from ledger.stripe_reading import StripeCustomer, StripeReading

WINDOW = timedelta(days=35)
EVENTS = timedelta(days=4)  # Stripe gives up telling after three


def latest(now: datetime) -> Days:
    """What is compared every day."""
    return Days(now - WINDOW, None, now - EVENTS, True)


def days_of(now: datetime, since: datetime | None, until: datetime | None) -> Days:
    """What a person asks for: without days the latest. What is still to come is none."""
    until = None if until is None or until > now else until
    if since is None and until is None:
        return latest(now)
    first = since or (until or now) - WINDOW
    return Days(first, until, first, False)


async def _go_on() -> None:
    return


class AgainstStripe:
    """`beat` is awaited again and again: who holds something meanwhile says that it still does."""

    def __init__(
        self,
        connection: Connection,
        reading: StripeReading,
        days: Days,
        now: datetime,
        beat: Callable[[], Awaitable[None]] = _go_on,
    ) -> None:
        self._db = connection
        self._stripe = reading
        self._days = days
        self._now = now
        self._beat = beat
        self._report = StripeReport(since=days.since, until=days.until)
        self._unanswered: set[str] = set()  # ids of ours that Stripe has, and we do not know yet

    async def run(self) -> StripeReport:
        await self._section("events", self._events)
        await self._section("customers", self._customers)
        sides = InvoicesBeside(
            self._db, self._stripe, self._days, self._now, self._report, self._beat
        )
        await self._section("invoices", sides.run)
        self._report.ledger = await check_invoices(self._db)
        return self._report

    async def _section(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """What Stripe does not say of one kind does not keep the others from being compared."""
        try:
            await work()
        except KeyRefused as error:
            reason = f"{name}: Stripe refuses STRIPE_API_KEY ({error}); it must read {name}"
            self._report.not_compared.append(reason)
        except NotOpaque:
            # A page goes on after an object's id, and whoever else uses the account may choose it.
            self._report.not_compared.append(
                f"{name}: one in Stripe has an id of a form of its own"
            )
        except StripeFailure as error:
            self._report.not_compared.append(
                f"{name}: Stripe does not say ({type(error).__name__}: {error})"
            )

    async def _events(self) -> None:
        until = self._now - PATIENCE
        until = until if self._days.until is None else min(until, self._days.until)
        async for page in self._stripe.events(self._days.events_since, until):
            await self._beat()
            self._report.compared["events"] += len(page)
            told = {one.event_id: one.stripe_invoice_id for one in page}
            by_id = {one.event_id: one for one in page}
            for one in await store.stripe_reconcile.unreceived(self._db, told):
                await self._unreceived(one, by_id[one.event_id])

    async def _unreceived(self, one: store.stripe_reconcile.Unreceived, event: StripeEvent) -> None:
        if is_here(event.type, one.status, is_owed=one.is_owed):
            return
        await store.stripe_events.insert(self._db, event, self._now)
        self._report.found(
            Disagreement(
                kind="missed",
                what=event.type,
                number=one.number,
                invoice_id=one.invoice_id,
                stripe_id=event.stripe_invoice_id,
                ours=one.status,
                theirs=event.event_id,
            )
        )

    async def _customers(self) -> None:
        async for page in self._stripe.customers(self._days.since, self._days.until):
            await self._beat()
            marked = [(one, mark_of(one.metadata)) for one in page]
            payers = [payer for _, mark in marked if (payer := uuid_of(mark))]
            known = await store.stripe_reconcile.customers(self._db, payers)
            for one, mark in marked:
                if mark is not None:
                    self._report.compared["customers"] += 1
                    self._customer(one, mark, known)

    def _customer(self, one: StripeCustomer, mark: str, known: Mapping[UUID, str | None]) -> None:
        payer = uuid_of(mark)
        ours = None if payer is None else known.get(payer)
        if ours == one.id:
            return
        if payer in known and ours is None and mark not in self._unanswered:
            self._unanswered.add(mark)
            return
        what = "customer, of no payer here" if payer not in known else "second customer of a payer"
        self._report.found(
            Disagreement(kind="extra", what=what, stripe_id=one.id, ours=ours, theirs=one.id)
        )
