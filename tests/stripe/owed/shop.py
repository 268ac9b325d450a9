"""Invoices that were issued, as rows, and what must be in Stripe of them in the end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

from ledger import clock as real_clock
from ledger import db, store
from ledger.domain.line import Line
from ledger.domain.stripe_invoice import OUR_ID, Bill, minor_units
from ledger.invoice_actions import InvoiceActions
from ledger.reconcile.against_stripe import AgainstStripe, latest
from ledger.reconcile.stripe_report import StripeReport
from ledger.store.invoices import Invoice
from ledger.stripe_api import StripeApi
from ledger.stripe_calls import owe
from ledger.stripe_delivery import Delivery
from ledger.stripe_reading import Rest, StripeReading
from tests.invoices.conftest import Pool
from tests.stripe_fake.books import Object
from tests.stripe_fake.clock import Clock
from tests.stripe_fake.scan import CANARIES
from tests.stripe_fake.server import FakeStripe

MOST = 400  # looks: more means that it will never be done
TWO_HOURS = timedelta(hours=2)  # past every lease and every wait between two tries
PERIOD = timedelta(days=30)


async def at_once(_: float) -> None:
    """Waits not at all."""


class Worker(Delivery):
    """One that looks before each call what is to be owed; the ledger does so now and then."""

    async def run_once(self) -> bool:
        owed = await owe(self._db, self._now())
        return await super().run_once() or owed > 0


class Shop:
    def __init__(
        self, fake: FakeStripe, api: StripeApi, clock: Clock, connection: db.Connection
    ) -> None:
        self.fake, self.api, self.clock, self.sql = fake, api, clock, connection
        self.connections: list[db.Connection] = []  # of workers beside the first
        self.actions = InvoiceActions(Pool(connection))  # type: ignore[arg-type]
        self.work = self.worker(connection)

    def worker(self, connection: Any, api: Any = None, random: Random | None = None) -> Delivery:
        return Worker(connection, api or self.api, self.clock.now, random or Random(1))

    async def issue(self, bill: Bill, scope: str = "user") -> UUID:
        """Writes the invoice as the cycle would."""
        organization = bill.payer_id if scope == "organization" else None
        subscription = await self._subscription(bill.payer_id, organization, scope)
        start = real_clock.now() + PERIOD * int(bill.number.removeprefix("INV-"))
        period = await self.sql.fetchval(
            "INSERT INTO billing_periods (subscription_id, kind, period_start, period_end,"
            " billing_period, lines_before, due_at)"
            " VALUES ($1, 'period', $2, $3, ($2::TIMESTAMPTZ)::DATE, $3, $3)"
            " RETURNING billing_period_id",
            subscription,
            start,
            start + PERIOD,
        )
        now = real_clock.now()
        invoice = Invoice(
            invoice_id=bill.invoice_id,
            billing_period_id=period,
            number=bill.number,
            subscription_id=subscription,
            user_id=bill.payer_id,
            organization_id=organization,
            scope="organization" if organization else "user",
            period_start=start,
            period_end=start + PERIOD,
            currency=bill.currency,
            status="open" if bill.total else "paid",
            subtotal=bill.total,
            total=bill.total,
            issued_at=now,
            due_at=now + timedelta(days=bill.days_until_due),
            created_at=now,
        )
        await store.invoices.insert(self.sql, invoice)
        lines = [
            (
                one.line_id,
                Line(
                    kind=one.kind,
                    description=CANARIES["line"],
                    amount=one.amount,
                    usage_type=one.usage_type,
                    quantity=one.quantity,
                    span=one.span,
                ),
                None,
            )
            for one in bill.lines
        ]
        await store.invoices.insert_lines(self.sql, bill.invoice_id, lines)
        return bill.invoice_id

    async def _subscription(self, payer: UUID, organization: UUID | None, scope: str) -> UUID:
        found: UUID | None = await self.sql.fetchval(
            "SELECT subscription_id FROM subscriptions WHERE user_id = $1", payer
        )
        if found is not None:
            return found
        made: UUID = await self.sql.fetchval(
            "INSERT INTO subscriptions (user_id, organization_id, scope, plan_tier, plan_version,"
            " status, anchor) VALUES ($1, $2, $3, 'basic', 1, 'active', NOW())"
            " RETURNING subscription_id",
            payer,
            organization,
            scope,
        )
        return made

    async def void(self, invoice_id: UUID) -> None:
        await self.actions.void(invoice_id, "test", actor="test", now=real_clock.now())

    async def deliver(
        self, workers: Sequence[Delivery] = (), pause: Callable[[], timedelta] = lambda: TWO_HOURS
    ) -> None:
        """Until nothing is owed, or all that is waits for a person."""
        for _ in range(MOST):
            busy = await asyncio.gather(*(one.run_once() for one in workers or [self.work]))
            if not any(busy):
                if not await self.outstanding():
                    return
                self.clock.advance(pause())
        raise AssertionError("something is owed for ever")

    async def compared(self, api: Any = None, rest: Rest | None = None) -> StripeReport:
        """Invoices beside Stripe's, as every day; nothing is waited for."""
        now = self.clock.now()
        reading = StripeReading(api or self.api, rest or at_once)
        return await AgainstStripe(self.sql, reading, latest(now), now).run()

    async def outstanding(self) -> int:
        """Calls that nobody has to decide on."""
        count = await self.sql.fetchval(
            "SELECT COUNT(*) FROM stripe_calls c WHERE done_at IS NULL AND NOT EXISTS"
            " (SELECT FROM stripe_calls p WHERE p.payer_id = c.payer_id AND p.done_at IS NULL"
            "  AND p.parked IS NOT NULL AND p.call_id <= c.call_id)"
        )
        return int(count)

    async def parked(self) -> list[store.stripe_calls.ParkedCall]:
        return await store.stripe_calls.parked(self.sql)

    def ours(self, kind: str, one: UUID) -> list[Object]:
        """What Stripe has under an id of ours."""
        return [x for x in self.fake.books.all(kind) if x["metadata"].get(OUR_ID) == str(one)]

    async def holds_once(self, bill: Bill) -> str:
        """One customer, one invoice, one item a line, to the cent, and known here; its status."""
        assert len(self.ours("customer", bill.payer_id)) == 1
        [invoice] = self.ours("invoice", bill.invoice_id)
        assert invoice["total"] == minor_units(bill.total, bill.currency)
        assert invoice["number"] == bill.number
        items = self.fake.books.items(invoice["id"])
        wanted = {str(one.line_id): minor_units(one.amount, bill.currency) for one in bill.lines}
        assert {one["metadata"][OUR_ID]: one["amount"] for one in items} == wanted
        assert len(items) == len(wanted)
        found = await store.invoices.find(self.sql, bill.invoice_id)
        assert found is not None and found.stripe_invoice_id == invoice["id"]
        return str(invoice["status"])

    async def events(self) -> Counter[str]:
        rows = await self.sql.fetch("SELECT event_type FROM audit_events")
        return Counter(row["event_type"] for row in rows)
