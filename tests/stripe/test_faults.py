"""Whatever happens to a request, there is one object of it in the end."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from random import Random
from uuid import UUID

import pytest

from ledger.domain.stripe_invoice import (
    OUR_ID,
    Bill,
    Call,
    Ids,
    Operation,
    credit_note_call,
    minor_units,
    void_call,
)
from ledger.stripe_api import StripeApi
from tests.stripe.bills import drawn, example
from tests.stripe.delivery import Delivery, calls_of
from tests.stripe_fake.clock import Clock
from tests.stripe_fake.faults import Fault
from tests.stripe_fake.server import FakeStripe

KINDS: dict[Operation, str] = {
    "customer": "customer",
    "invoice": "invoice",
    "item": "invoiceitem",
    "finalize": "invoice",
    "void": "invoice",
    "credit_note": "credit_note",
}
CREDIT = UUID("6f0f7a43-3f9b-4a7e-9d49-6a2d0c9e4b11")


async def before(operation: Operation, delivery: Delivery, bill: Bill) -> tuple[Call, Ids]:
    """Does all that comes before the operation; its call."""
    if operation in ("void", "credit_note"):
        ids = await delivery.bill(bill)
        if operation == "void":
            return void_call(bill.invoice_id), ids
        return credit_note_call(CREDIT, Decimal("1.00"), bill.currency), ids
    ids = Ids()
    for call in calls_of(bill):
        if call.operation == operation:
            return call, ids
        done = await delivery.call(call, ids)
        if call.operation == "customer":
            ids = Ids(customer=done.id)
        elif call.operation == "invoice":
            ids = Ids(customer=ids.customer, invoice=done.id)
    raise AssertionError(operation)


def ours(fake: FakeStripe, kind: str) -> Counter[str]:
    return Counter(one["metadata"][OUR_ID] for one in fake.books.all(kind))


@pytest.mark.parametrize("fault", Fault, ids=lambda one: one.name.lower())
@pytest.mark.parametrize("operation", KINDS)
async def test_a_call_that_meets_a_fault_is_done_once(
    fake: FakeStripe, delivery: Delivery, operation: Operation, fault: Fault
) -> None:
    call, ids = await before(operation, delivery, example())
    happened = len(fake.webhooks.events)
    # Before it is finalised, a draft is read: that may fail as well.
    fake.faults = [fault, fault] if operation == "finalize" else [fault]
    done = await delivery.call(call, ids)
    kind = KINDS[operation]
    assert done.id == fake.books.all(kind)[0]["id"]
    of_call = example().invoice_id if kind == "invoice" else call.ours
    assert ours(fake, kind)[str(of_call)] == 1
    assert len(fake.webhooks.events) == happened + 1
    assert fake.faults == []


@pytest.mark.parametrize("operation", KINDS)
async def test_a_try_after_stripe_forgot_the_key_finds_what_is_there(
    fake: FakeStripe, delivery: Delivery, clock: Clock, operation: Operation
) -> None:
    call, ids = await before(operation, delivery, example())
    late = Delivery(delivery.api, clock, pause=lambda: timedelta(hours=25))
    fake.faults = [Fault.LOSE_ANSWER]
    if operation == "finalize":
        fake.faults = [None, Fault.LOSE_ANSWER]  # the first is the look at the total
    await late.call(call, ids)
    assert max(ours(fake, KINDS[operation]).values()) == 1


async def test_a_customer_is_found_among_hundreds(
    fake: FakeStripe, api: StripeApi, delivery: Delivery, clock: Clock
) -> None:
    call, ids = await before("customer", delivery, example())
    made = await delivery.call(call, ids)
    for seed in range(1, 251):
        fake.books.customer({"metadata": {OUR_ID: str(drawn(seed).payer_id)}})
    assert await api.find(call, ids, clock.now()) == made


async def test_any_history_of_faults_leaves_every_object_once_and_the_totals_to_the_cent(
    fake: FakeStripe, hasty: StripeApi, clock: Clock, seeds: range
) -> None:
    fake.books.lists_behind = timedelta(minutes=1)
    for seed in seeds:
        random = Random(seed)
        fake.choose = lambda random=random: fault_of(random)  # type: ignore[misc]
        hours = [0, 0, 0, 0, 1, 12, 23, 24, 30]
        delivery = Delivery(
            hasty,
            clock,
            pause=lambda r=random, h=hours: timedelta(hours=r.choice(h)),  # type: ignore[misc]
            crashes=lambda r=random: not r.randrange(6),  # type: ignore[misc]
        )
        bill = drawn(seed)
        ids = await delivery.bill(bill)
        holds_once(fake, bill, ids)
    assert max(Counter(ours(fake, "customer")).values()) == 1


def fault_of(random: Random) -> Fault | None:
    """Half of the requests meet one; those that a test must wait for are rare."""
    if random.randrange(2):
        return None
    fault = random.choice(list(Fault))
    return None if fault.waits and random.randrange(5) else fault


def holds_once(fake: FakeStripe, bill: Bill, ids: Ids) -> None:
    """One customer, one invoice that is due, one item a line; to the cent."""
    assert ours(fake, "customer")[str(bill.payer_id)] == 1
    assert ours(fake, "invoice")[str(bill.invoice_id)] == 1
    assert ids.invoice is not None
    invoice = fake.books.get("invoice", ids.invoice)
    assert invoice["total"] == minor_units(bill.total, bill.currency)
    assert (invoice["status"], invoice["number"]) == ("open", bill.number)
    amounts = {str(one.line_id): minor_units(one.amount, bill.currency) for one in bill.lines}
    items = fake.books.items(ids.invoice)
    assert len(items) == len(amounts)
    assert {one["metadata"][OUR_ID]: one["amount"] for one in items} == amounts
