"""What the adapter knows, and says, when a call fails."""

from __future__ import annotations

import asyncio
import logging
import traceback
from decimal import Decimal

import msgspec
import pytest
from aiohttp import web

from ledger import stripe_api
from ledger.domain.stripe_invoice import Ids, customer_call, invoice_calls, void_call
from ledger.stripe_api import StripeApi
from ledger.stripe_failures import (
    Ambiguous,
    KeyRefused,
    Refused,
    StripeFailure,
    TryLater,
    Unknown,
)
from tests.stripe.bills import example
from tests.stripe.delivery import Delivery
from tests.stripe_fake import openapi
from tests.stripe_fake.clock import Clock
from tests.stripe_fake.faults import Fault
from tests.stripe_fake.server import API_KEY, RETRY_AFTER_S, FakeStripe

CALL = customer_call(example().payer_id)
NONE = Ids()


def test_the_version_that_is_asked_for_is_that_of_the_document() -> None:
    assert openapi.load().version == stripe_api.VERSION


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Fault.LOSE_REQUEST, Unknown),
        (Fault.LOSE_ANSWER, Unknown),
        (Fault.TIME_OUT_BEFORE, Unknown),
        (Fault.TIME_OUT_AFTER, Unknown),
        (Fault.FAIL_BEFORE, Unknown),
        (Fault.FAIL_AFTER, Unknown),
        (Fault.AWAY, Unknown),
        (Fault.EDGE, Unknown),
        (Fault.GARBLE, Unknown),
        (Fault.PORTAL, Unknown),
        (Fault.CUT, Unknown),
        (Fault.TRICKLE, Unknown),
        (Fault.RATE_LIMIT, TryLater),
        (Fault.LOCKED, TryLater),
    ],
)
async def test_a_fault_is_told_by_what_is_known(
    fake: FakeStripe, api: StripeApi, hasty: StripeApi, fault: Fault, failure: type[StripeFailure]
) -> None:
    fake.faults = [fault]
    with pytest.raises(failure) as told:
        await (hasty if fault.waits else api).send(CALL, NONE)
    assert not getattr(told.value, "stored", False)
    # A deadline may pass before the request has come so far.
    assert len(fake.seen) == 1 or (fault.waits and not fake.seen), "the library retries nothing"


async def test_a_rate_limit_says_when_to_come_again(fake: FakeStripe, api: StripeApi) -> None:
    fake.faults = [Fault.RATE_LIMIT]
    with pytest.raises(TryLater) as told:
        await api.send(CALL, NONE)
    assert told.value.after_s == RETRY_AFTER_S


@pytest.mark.parametrize("fault", [Fault.FAIL_BEFORE, Fault.FAIL_AFTER])
async def test_a_failure_that_stripe_keeps_is_told_as_kept(
    fake: FakeStripe, api: StripeApi, fault: Fault
) -> None:
    fake.faults = [fault]
    with pytest.raises(Unknown):
        await api.send(CALL, NONE)
    with pytest.raises(Unknown) as told:
        await api.send(CALL, NONE)
    assert told.value.stored
    made = await api.send(CALL, NONE, key_number=1)
    assert made.id == fake.books.all("customer")[0]["id"]


async def test_where_nobody_listens_nothing_has_happened(fake: FakeStripe, clock: Clock) -> None:
    other = FakeStripe(openapi.load(), clock)
    await other.start()
    url = other.url
    await other.close()
    api = StripeApi(API_KEY, url)
    with pytest.raises(TryLater):
        await api.send(CALL, NONE)
    await api.close()


async def test_a_try_while_another_is_under_way_comes_later(
    fake: FakeStripe, api: StripeApi
) -> None:
    fake.faults = [Fault.LATE]
    first = asyncio.ensure_future(api.send(CALL, NONE))
    while fake.faults:  # noqa: ASYNC110 - until it is under way
        await asyncio.sleep(0)
    with pytest.raises(TryLater):
        await api.send(CALL, NONE)
    await api.send(CALL, NONE)
    assert len(fake.books.all("customer")) == 1
    first.cancel()


async def test_a_key_with_another_body_is_refused_for_good(
    fake: FakeStripe, api: StripeApi, clock: Clock
) -> None:
    draft, item, *_ = invoice_calls(example())
    customer = await api.send(CALL, NONE)
    ids = Ids(customer=customer.id)
    ids = Ids(customer=customer.id, invoice=(await api.send(draft, ids)).id)
    await api.send(item, ids)
    changed = msgspec.structs.replace(item, params={**item.params, "amount": 1})
    with pytest.raises(Refused) as told:
        await api.send(changed, ids)
    assert (told.value.status, told.value.code) == (400, "idempotency_error")


async def test_what_the_state_does_not_allow_is_refused_with_stripes_code(
    fake: FakeStripe, api: StripeApi, clock: Clock
) -> None:
    ids = await Delivery(api, clock).bill(example())
    assert ids.invoice is not None
    fake.books.pay(ids.invoice, {})
    with pytest.raises(Refused) as told:
        await api.send(void_call(example().invoice_id), ids)
    assert told.value.code == "invoice_not_editable"


async def test_a_wrong_api_key_is_no_fault_of_the_call(fake: FakeStripe) -> None:
    api = StripeApi("sk_test_wrong", fake.url)
    with pytest.raises(KeyRefused) as told:
        await api.send(CALL, NONE)
    assert "sk_test" not in str(told.value)
    await api.close()


async def test_a_draft_with_another_total_than_ours_is_not_finalised(
    fake: FakeStripe, api: StripeApi, clock: Clock
) -> None:
    *calls, finalize = invoice_calls(example())
    ids = Ids(customer=(await api.send(CALL, NONE)).id)
    ids = Ids(customer=ids.customer, invoice=(await api.send(calls[0], ids)).id)
    for call in calls[1:-1]:
        await api.send(call, ids)
    fake.books.item(
        {"customer": ids.customer, "invoice": ids.invoice, "currency": "usd", "amount": "1"}
    )
    with pytest.raises(Ambiguous):
        await api.send(finalize, ids)
    assert fake.books.all("invoice")[0]["status"] == "draft"


async def test_two_objects_of_one_id_are_for_a_person(
    fake: FakeStripe, api: StripeApi, clock: Clock
) -> None:
    await api.send(CALL, NONE)
    await api.send(CALL, NONE, key_number=1)
    with pytest.raises(Ambiguous):
        await api.find(CALL, NONE, clock.now())


async def test_a_look_up_finds_nothing_where_nothing_was_done(
    fake: FakeStripe, api: StripeApi, clock: Clock
) -> None:
    *_, finalize = calls = invoice_calls(example())
    assert await api.find(CALL, NONE, clock.now()) is None
    ids = Ids(customer=(await api.send(CALL, NONE)).id)
    assert await api.find(calls[0], ids, clock.now()) is None
    ids = Ids(customer=ids.customer, invoice=(await api.send(calls[0], ids)).id)
    assert await api.find(calls[1], ids, clock.now()) is None
    assert await api.find(finalize, ids, clock.now()) is None
    for call in calls[1:]:
        await api.send(call, ids)
    assert await api.find(finalize, ids, clock.now())
    assert await api.find(void_call(example().invoice_id), ids, clock.now()) is None


async def test_a_failure_tells_and_logs_nothing_of_what_was_sent(
    fake: FakeStripe, api: StripeApi, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.NOTSET)
    ids = await Delivery(api, clock).bill(example())
    finalize = msgspec.structs.replace(invoice_calls(example())[-1], total=None)
    with pytest.raises(Refused) as told:
        await api.send(finalize, ids, key_number=1)
    said = "".join(traceback.format_exception(told.value)) + repr(told.value) + caplog.text
    assert "SENT-BY-CALLER" not in said
    assert API_KEY not in said
    assert "invoice_not_editable" in said


async def test_the_key_follows_no_redirect(fake: FakeStripe) -> None:
    async def elsewhere(request: web.Request) -> web.Response:
        text = '{"error": {"type": "invalid_request_error"}}'
        raise web.HTTPTemporaryRedirect(fake.url + request.path, text=text)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", elsewhere)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    api = StripeApi(API_KEY, f"http://{host}:{port}")
    with pytest.raises(Unknown):
        await api.send(CALL, NONE)
    assert fake.seen == []
    await api.close()
    await runner.cleanup()


async def test_an_invoice_over_nothing_in_the_end_is_paid_at_once(
    fake: FakeStripe, api: StripeApi, clock: Clock
) -> None:
    fee, usage, *_ = example().lines
    lines = (fee, msgspec.structs.replace(usage, kind="credit", amount=-fee.amount))
    free = msgspec.structs.replace(example(), lines=lines, total=Decimal(0))
    ids = await Delivery(api, clock).bill(free)
    assert (await api.invoice(ids)).status == "paid"


async def test_of_an_answer_without_end_only_so_much_is_read(
    fake: FakeStripe, api: StripeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await api.send(CALL, NONE)
    monkeypatch.setattr(stripe_api, "LONGEST_ANSWER", 64)
    with pytest.raises(Unknown, match="too long"):
        await api.send(CALL, NONE)
    monkeypatch.undo()
    assert await api.send(CALL, NONE) == made
