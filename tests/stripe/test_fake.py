"""The fake Stripe keeps to what Stripe documents, where a delivery depends on it."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from random import Random
from typing import Any

import pytest
import stripe
from aiohttp import ClientSession

from ledger.domain.stripe_invoice import Ids, customer_call
from ledger.stripe_api import VERSION, StripeApi
from ledger.stripe_failures import Refused
from tests.stripe.bills import example
from tests.stripe.delivery import Delivery
from tests.stripe_fake import openapi
from tests.stripe_fake.clock import Clock
from tests.stripe_fake.server import API_KEY, FakeStripe
from tests.stripe_fake.webhooks import Webhooks

CALL = customer_call(example().payer_id)
SECRETS = ("whsec_new", "whsec_old")


async def ask(fake: FakeStripe, method: str, path: str, **form: str) -> tuple[int, Any]:
    headers = {
        "Authorization": f"Bearer {API_KEY}",
        "Stripe-Version": VERSION,
        "Idempotency-Key": "key",
    }
    send: dict[str, Any] = {"data": form} if method == "post" else {"params": form}
    async with (
        ClientSession() as session,
        session.request(method, fake.url + path, headers=headers, **send) as answer,
    ):
        fake.leaks.clear()  # it is not ours who asks
        return answer.status, await answer.json()


async def test_a_key_is_forgotten_after_24_hours_and_not_before(
    fake: FakeStripe, api: StripeApi, clock: Clock
) -> None:
    made = await api.send(CALL, Ids())
    clock.advance(timedelta(hours=24) - timedelta(microseconds=1))
    assert await api.send(CALL, Ids()) == made
    clock.advance(timedelta(microseconds=1))
    assert await api.send(CALL, Ids()) != made
    assert len(fake.books.all("customer")) == 2


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/v1/customers", {"nickname": "x"}),
        ("/v1/invoices", {"auto_advance": "perhaps"}),
        ("/v1/invoiceitems", {"amount": "1.5"}),
        ("/v1/credit_notes", {"amount": "1"}),
        ("/v1/invoice", {}),
    ],
)
async def test_what_the_document_does_not_know_is_refused_and_fails_the_test(
    fake: FakeStripe, path: str, form: dict[str, str]
) -> None:
    status, _ = await ask(fake, "post", path, **form)
    assert status == 400
    assert len(fake.wrong) == 1
    fake.wrong.clear()


async def test_lists_are_newest_first_in_pages(fake: FakeStripe) -> None:
    made = [fake.books.customer({})["id"] for _ in range(5)]
    _, first = await ask(fake, "get", "/v1/customers", limit="3")
    _, last = await ask(fake, "get", "/v1/customers", limit="3", starting_after=made[2])
    assert [one["id"] for one in first["data"] + last["data"]] == made[::-1]
    assert (first["has_more"], last["has_more"]) == (True, False)


async def test_an_item_is_added_to_a_draft_only(
    fake: FakeStripe, api: StripeApi, clock: Clock
) -> None:
    ids = await Delivery(api, clock).bill(example())
    assert ids.invoice is not None and ids.customer is not None
    form = {"customer": ids.customer, "invoice": ids.invoice, "amount": "1", "currency": "usd"}
    status, said = await ask(fake, "post", "/v1/invoiceitems", **form)
    assert (status, said["error"]["code"]) == (400, "invoice_not_editable")
    assert len(fake.books.items(ids.invoice)) == len(example().lines)


async def test_more_than_the_invoice_is_not_credited(
    fake: FakeStripe, api: StripeApi, clock: Clock
) -> None:
    ids = await Delivery(api, clock).bill(example())
    assert ids.invoice is not None
    status, _ = await ask(fake, "post", "/v1/credit_notes", invoice=ids.invoice, amount="46628")
    assert status == 400
    assert fake.books.all("credit_note") == []


async def test_an_invoice_that_is_not_there_is_a_404(fake: FakeStripe, api: StripeApi) -> None:
    with pytest.raises(Refused) as told:
        await api.invoice(Ids(invoice="in_9"))
    assert (told.value.status, told.value.code) == (404, "resource_missing")


async def test_every_change_is_told_as_an_event_of_stripes_form(
    fake: FakeStripe, api: StripeApi, clock: Clock
) -> None:
    ids = await Delivery(api, clock).bill(example())
    assert ids.invoice is not None
    fake.books.pay(ids.invoice, {})
    told = [one["type"] for one in fake.webhooks.events]
    assert told == [
        "customer.created",
        "invoice.created",
        *["invoiceitem.created"] * len(example().lines),
        "invoice.finalized",
        "invoice.paid",
    ]
    for event in fake.webhooks.events:
        assert openapi.load().object_problems("event", event) == []


def events(clock: Clock, count: int) -> Webhooks:
    made = Webhooks(clock, VERSION, SECRETS)
    for number in range(count):
        made.happened("customer.created", {"id": f"cus_{number}", "object": "customer"})
    return made


@pytest.mark.parametrize("secret", SECRETS)
def test_webhooks_are_signed_with_every_secret_as_stripe_signs(clock: Clock, secret: str) -> None:
    [one] = events(clock, 1).deliveries(Random(0))
    verify = stripe.WebhookSignature.verify_header
    assert verify(one.body.decode(), one.signature, secret)
    with pytest.raises(stripe.SignatureVerificationError):
        verify(one.body.decode(), one.signature, "whsec_other")
    with pytest.raises(stripe.SignatureVerificationError):
        verify(one.body.decode() + " ", one.signature, secret)


def test_webhooks_come_twice_late_never_and_out_of_order_the_same_way_for_a_seed(
    clock: Clock,
) -> None:
    def told(seed: int) -> tuple[list[str], list[str], list[str]]:
        webhooks, random = events(clock, 200), Random(seed)
        first = webhooks.deliveries(random, lost=10, twice=20, late=30, shuffled=True)
        rest = webhooks.deliveries(random)
        made = [one["id"] for one in webhooks.events]
        return made, [one.event_id for one in first], [one.event_id for one in rest]

    made, first, rest = told(1)
    assert told(1) == (made, first, rest) != told(2)
    assert set(Counter(first).values()) == {1, 2}
    assert first != sorted(first)
    assert rest and not set(rest) & set(first)
    assert 0 < len(set(made) - set(first) - set(rest)) < 50
