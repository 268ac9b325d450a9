"""Invoices that are open in a fake Stripe, which tells the gateway what becomes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ledger import clock as real_clock
from ledger import store
from ledger.domain.ids import dev_uuid
from ledger.domain.stripe_invoice import OUR_ID, Ids, minor_units
from ledger.payments import Payments
from ledger.settings import Secret, Settings
from ledger.store.invoices import Invoice
from ledger.stripe_api import StripeApi, StripeObject
from ledger.supersede import Superseder
from tests.conftest import BASE, Service
from tests.invoices.conftest import GRACE, TYPE, Months
from tests.stripe_fake.clock import Clock
from tests.stripe_fake.server import FakeStripe
from tests.stripe_fake.webhooks import Delivery

PATH = "/webhooks/stripe"


class Till:
    """One customer, whose base fee is in Stripe. `months` is the service, `clock` the real time."""

    def __init__(self, months: Months, fake: FakeStripe, clock: Clock, api: Any) -> None:
        self.months, self.fake, self.clock = months, fake, clock
        self.sql, self.api = months.sql, api
        self.work = self.worker(api)
        self.stripe_id = ""
        self.invoice_id = UUID(int=0)

    def worker(self, api: Any, connection: Any = None) -> Payments:
        service = self.months.service
        superseder = Superseder(service.scripts, "basic", service.settings.partitions)
        return Payments(connection or self.sql, api, superseder, GRACE)

    async def open(self, user: str = "ada") -> None:
        await self.months.create(user, "pro")
        [invoice] = [one for one in await self.months.invoices() if one.user_id == dev_uuid(user)]
        self.invoice_id, self.stripe_id = await self.deliver(invoice)

    async def deliver(self, invoice: Invoice) -> tuple[UUID, str]:
        """As the delivery would: what Stripe tells of that is of no interest here."""
        books = self.fake.books
        customer = books.customer({})["id"]
        said = {
            "customer": customer,
            "currency": "usd",
            "number": invoice.number,
            "collection_method": "send_invoice",
            "days_until_due": 30,
            "metadata": {OUR_ID: str(invoice.invoice_id)},
        }
        made = books.invoice(said)["id"]
        lines = await store.invoices.lines(self.sql, [invoice.invoice_id])
        for line in lines[invoice.invoice_id]:
            item = {
                "customer": customer,
                "invoice": made,
                "amount": minor_units(line.amount, invoice.currency),
                "currency": "usd",
                "metadata": {OUR_ID: str(line.line_id)},
            }
            books.item(item)
        books.finalize(made, {})
        self.fake.webhooks.deliveries(Random(0))
        await self.sql.execute(
            "UPDATE invoices SET stripe_invoice_id = $2 WHERE invoice_id = $1",
            invoice.invoice_id,
            made,
        )
        return invoice.invoice_id, made

    def pay(self) -> None:
        self.fake.books.pay(self.stripe_id, {})

    def fail(self) -> None:
        self.fake.books.fail_payment(self.stripe_id)

    async def post(self, one: Delivery) -> tuple[int, Any]:
        url = f"{self.months.service.url}{BASE}{PATH}"
        headers = {"Stripe-Signature": one.signature, "Content-Type": "application/json"}
        async with self.months.service.http.post(url, data=one.body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def tell(self) -> None:
        """Everything that Stripe has to tell."""
        for one in self.fake.webhooks.deliveries(Random(0)):
            assert (await self.post(one))[0] == 200

    async def look(self) -> None:
        """Until nothing is due."""
        while await self.work.run_once(self.months.now, self.clock.now()):
            pass
        await self.months.settle()

    async def after(self, **later: float) -> None:
        """So much later by the service's time alone, everything is seen to."""
        await self.months.move(self.months.now + timedelta(**later))
        await self.months.settle()
        await self.look()

    async def use(self, user: str = "ada") -> tuple[int, Any]:
        body = {"user_id": user, "usage_type": TYPE, "quantity": 1}
        status, said, _ = await self.months.service.post("/usage", body)
        return status, said.get("reason")

    async def invoice(self) -> Invoice:
        found = await store.invoices.find(self.sql, self.invoice_id)
        assert found is not None
        return found

    async def status(self, user: str = "ada") -> str:
        found = await store.subscriptions.newest(self.sql, "user", dev_uuid(user), None)
        assert found is not None
        return found.status

    async def audit(self, kind: str) -> int:
        count = "SELECT COUNT(*) FROM audit_events WHERE event_type = $1"
        return int(await self.sql.fetchval(count, kind))


class Direct:
    """The books themselves in place of HTTP."""

    def __init__(self, fake: FakeStripe) -> None:
        self._fake = fake

    async def invoice(self, ids: Ids) -> StripeObject:
        return msgspec.convert(self._fake.books.get("invoice", ids.invoice or ""), StripeObject)


@pytest.fixture
def clock() -> Clock:
    return Clock(real_clock.now())


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, stripe_webhook_secrets=(Secret("whsec_1"),))


@pytest.fixture
async def till(
    service: Service, fake: FakeStripe, clock: Clock, api: StripeApi
) -> AsyncIterator[Till]:
    months = Months(service, park_above=1_000_000)
    await months.plan("pro", "499.00")
    made = Till(months, fake, clock, api)
    await made.open()
    yield made
