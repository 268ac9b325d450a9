"""What becomes of invoices at Stripe: paid, voided, given up; or owed, until a person has paid.

1. due     something was told (`stripe_events`), nothing was heard for a day, or a step is due
2. look    claim the invoice, and ask Stripe how it is now: outside any transaction
3. effect  invoice, dunning, subscription, audit events; and what was told of it is done

An event only says where to look, so it does not matter how often it comes, when, or whether it
does. Before every step of dunning Stripe is asked: nobody loses access over a message that was
lost. A worker that dies between 2 and 3 leaves the invoice claimed for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from ledger import store
from ledger.db import Connection
from ledger.domain.dunning import schedule
from ledger.domain.payment import Seen, judge
from ledger.domain.stripe_event import StripeEvent
from ledger.domain.stripe_invoice import Ids, amount_of, mark_of, uuid_of
from ledger.dunning import settle
from ledger.invoice_actions import NotPossible, write_off
from ledger.payment_audit import tell
from ledger.store.invoices import Invoice
from ledger.stripe_api import StripeApi, StripeObject
from ledger.stripe_failures import KeyRefused, Refused, StripeFailure, TryLater
from ledger.stripe_key import accepted_for_reading, refused
from ledger.supersede import Superseder

log = structlog.get_logger()

BATCH = 20
LEASE = timedelta(minutes=2)  # longer than a question and its effect take
POLL = timedelta(days=1)
PLAN = timedelta(minutes=1)  # between looks for invoices that are new in Stripe
# Stripe repeats an event for days by itself, and by hand for a month. What is told again after it
# is forgotten here is counted again.
KEPT = timedelta(days=90)
FORGET = timedelta(hours=1)  # between looks for older ones
FORGET_MOST = 10_000  # rows in one of them
_TOLD = {
    "paid": "invoice_paid",
    "void": "invoice_voided",
    "uncollectible": "invoice_uncollectible",
}
LONGEST_BACKOFF_S = 600  # well within the 15 minutes in which a failed payment is to be seen to


class Payments:
    """`grace`: how long after a period's end its invoice waits for usage that comes late."""

    def __init__(
        self, connection: Connection, api: StripeApi, superseder: Superseder, grace: timedelta
    ) -> None:
        self._db = connection
        self._api = api
        self._superseder = superseder
        self._grace = grace
        self._planned: datetime | None = None
        self._forgotten: datetime | None = None

    async def run_once(self, now: datetime, real: datetime) -> int:
        """Looks at what is due; at how many invoices. `now` is the service's time, by which steps
        are due, `real` the time that Stripe has too."""
        if self._planned is None or real - self._planned >= PLAN:
            await store.stripe_looks.plan(self._db, real, real + POLL)
            self._planned = real
        if self._forgotten is None or real - self._forgotten >= FORGET:
            await store.stripe_events.forget(self._db, real - KEPT, FORGET_MOST)
            self._forgotten = real
        until = await store.stripe_state.stopped_until(self._db)
        if until is not None and real < until:
            return 0
        looked = 0
        try:
            for stripe_id in await store.stripe_looks.due(self._db, real, now, BATCH):
                looked += await self._look(stripe_id, now, real)
        except KeyRefused:
            return looked  # so would be all the others
        return looked

    async def _look(self, stripe_id: str, now: datetime, real: datetime) -> bool:
        attempts = await store.stripe_looks.claim(self._db, stripe_id, real, real + LEASE)
        if attempts is None:
            return False
        events = await store.stripe_events.waiting(self._db, stripe_id)  # before Stripe is asked
        try:
            found = await self._ask(stripe_id)
        except StripeFailure as error:
            if isinstance(error, KeyRefused):
                await refused(self._db, real)
            after_s = error.after_s if isinstance(error, TryLater) else None
            wait = timedelta(seconds=after_s or min(2 ** min(attempts, 10), LONGEST_BACKOFF_S))
            reason = f"{type(error).__name__} {error}"
            await store.stripe_looks.failed(self._db, stripe_id, real + wait, reason)
            log.warning("stripe_look_waiting", reason=reason, attempts=attempts)
            if isinstance(error, KeyRefused):
                raise
            return False
        await accepted_for_reading(self._db)
        async with self._db.transaction():
            owed = await _Effect(self._db, stripe_id, events, now, real, self._grace).of(found)
        for one in owed:
            await self._superseder.reach(self._db, one)
        return True

    async def _ask(self, stripe_id: str) -> StripeObject | None:
        """None where Stripe has no such invoice: it was a draft, or of another account."""
        try:
            return await self._api.invoice(Ids(invoice=stripe_id))
        except Refused as error:
            if error.status == 404:
                return None
            raise


class _Effect:
    """What one look comes to, in one transaction."""

    def __init__(
        self,
        db: Connection,
        stripe_id: str,
        events: Sequence[StripeEvent],
        now: datetime,
        real: datetime,
        grace: timedelta,
    ) -> None:
        self._db = db
        self._stripe_id = stripe_id
        self._events = events
        self._now = now
        self._real = real
        self._grace = grace

    async def of(self, found: StripeObject | None) -> list[int]:
        """What is then owed to Redis."""
        ours = None if found is None else uuid_of(mark_of(found.metadata))
        invoice = await store.payments.hold(self._db, self._stripe_id, ours)
        if invoice is None:
            await self._done(None)
            await store.stripe_looks.forget(self._db, self._stripe_id)
            return []
        await store.subscriptions.wait_for(self._db, invoice.subscription_id)
        before = await store.payments.steps(self._db, invoice.subscription_id)
        failed = await self._count(invoice)
        if found is None:
            await self._contradicts(invoice, "not there at Stripe")
            gave_up = False
        else:
            gave_up = await self._becomes(invoice, found, failed)
        stored = await store.subscriptions.hold_by_id(self._db, invoice.subscription_id)
        assert stored is not None, "it is held by this transaction"
        after = await store.payments.steps(self._db, invoice.subscription_id)
        return await settle(
            self._db, stored, before, after, self._now, self._grace, gave_up=gave_up
        )

    async def _count(self, invoice: Invoice) -> list[StripeEvent]:
        """Ends what was told; the payments that failed by it."""
        done = await self._done(invoice.invoice_id)
        failed = [
            one
            for one in self._events
            if one.type == "invoice.payment_failed" and one.event_id in done
        ]
        for one in failed:
            await tell(self._db, invoice, "payment_failed", self._now, stripe_event=one.event_id)
        return failed

    async def _done(self, invoice_id: UUID | None) -> set[str]:
        ids = [one.event_id for one in self._events]
        return await store.stripe_events.done(self._db, ids, invoice_id, self._real)

    async def _becomes(
        self, invoice: Invoice, found: StripeObject, failed: Sequence[StripeEvent]
    ) -> bool:
        """Writes what the invoice is from now on; whether it was given up by that."""
        seen = Seen(
            status=found.status or "",
            total=amount_of(found.total or 0, invoice.currency),
            amount_paid=amount_of(found.amount_paid or 0, invoice.currency),
        )
        verdict = judge(invoice.status, invoice.total, invoice.amount_paid, seen)
        if verdict.contradiction is not None:
            await self._contradicts(invoice, verdict.contradiction)
            return False
        if (invoice.status, verdict.status) == ("open", "void"):
            try:
                await write_off(self._db, invoice)
            except NotPossible:
                await self._contradicts(invoice, "voided at Stripe, and cannot be voided here")
                return False
        await store.payments.put(self._db, invoice.invoice_id, verdict.status, verdict.amount_paid)
        if verdict.status != invoice.status:
            await tell(self._db, invoice, _TOLD[verdict.status], self._now, at_stripe=seen.status)
        if verdict.status == "open":
            return await self._owed(invoice, found, failed)
        await self._settled(invoice)
        return (invoice.status, verdict.status) == ("open", "uncollectible")

    async def _contradicts(self, invoice: Invoice, why: str) -> None:
        """For a person; nobody loses access over it. One that stays open is told of every day."""
        await tell(self._db, invoice, "payment_contradicts", self._now, reason=why)
        if invoice.status == "open":
            await store.payments.end_owed(self._db, invoice.invoice_id, self._now)
            await self._again(None)
        else:
            await self._settled(invoice)

    async def _settled(self, invoice: Invoice) -> None:
        """Nothing is owed of it any more, or hoped for."""
        await store.payments.end_owed(self._db, invoice.invoice_id, self._now)
        await store.stripe_looks.forget(self._db, self._stripe_id)

    async def _again(self, step_at: datetime | None) -> None:
        poll_at = self._real + POLL
        await store.stripe_looks.looked(self._db, self._stripe_id, self._real, poll_at, step_at)

    async def _owed(
        self, invoice: Invoice, found: StripeObject, failed: Sequence[StripeEvent]
    ) -> bool:
        """Takes the step that is due, if the invoice is owed; whether it was given up by that."""
        if found.status != "open" or invoice.issued_at is None or invoice.due_at is None:
            await self._again(None)  # a draft still, on its way
            return False
        # Sent to Stripe late, it is due later there; by a test clock only our own date moves.
        due = max(invoice.due_at, datetime.fromtimestamp(found.due_date or 0, UTC))
        ahead = self._now - self._real  # 0, but under the test clock: Stripe is not in the future
        # No event makes it owed since before there was an invoice: access would go in two days.
        since = [min(max(one.created_at + ahead, invoice.issued_at), self._now) for one in failed]
        since += [due] if due <= self._now else []
        before = await store.payments.owed(self._db, invoice.invoice_id)
        if before is not None:
            since.append(before.owed_since)
        if not since:
            await self._again(due)
            return False
        owed = schedule(self._now, min(since), before)
        await store.payments.put_owed(self._db, invoice, owed)
        if before is None or before.step != owed.step:
            await tell(self._db, invoice, f"payment_{owed.step}", self._now)
        if owed.step != "given_up":
            await self._again(owed.next_at)
            return False
        paid = invoice.amount_paid
        await store.payments.put(self._db, invoice.invoice_id, "uncollectible", paid)
        await tell(self._db, invoice, "invoice_uncollectible", self._now, at_stripe="open")
        await self._settled(invoice)
        return True
