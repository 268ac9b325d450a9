"""An invoice of ours as calls to Stripe: pure, without a server."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest

from ledger.domain.stripe_attempt import KEY_KEPT, SETTLED, Attempt
from ledger.domain.stripe_invoice import (
    BilledLine,
    Call,
    Ids,
    NotSendable,
    amount_of,
    credit_note_call,
    customer_call,
    invoice_calls,
    minor_units,
    request_of,
    void_call,
)
from tests.stripe.bills import OCTOBER, bill, example
from tests.stripe_fake.clock import Clock

LINE = UUID("1c6f7f0e-52a5-4f5e-8a2e-0d3b6f1f5a01")
IDS = Ids(customer="cus_1", invoice="in_1")


def test_an_invoice_is_a_draft_then_an_item_a_line_then_finalised() -> None:
    one = example()
    draft, *items, finalize = invoice_calls(one)
    assert [draft.operation, finalize.operation] == ["invoice", "finalize"]
    assert [(item.operation, item.ours) for item in items] == [
        ("item", line.line_id) for line in one.lines
    ]
    assert [item.params["amount"] for item in items] == [49900, 60, -3333, 0]
    assert finalize.total == 46627


def test_stripe_does_nothing_with_a_draft_or_an_invoice_by_itself() -> None:
    draft, *_, finalize = invoice_calls(example())
    assert draft.params["auto_advance"] is finalize.params["auto_advance"] is False
    assert draft.params["pending_invoice_items_behavior"] == "exclude"
    assert draft.params["number"] == "INV-00000001"


def test_an_item_says_when_it_was_used() -> None:
    usage = invoice_calls(example())[2]
    start, end = usage.params["period"]["start"], usage.params["period"]["end"]
    assert (start, end - start) == (1790812800, OCTOBER.microseconds // 10**6)


def test_calls_are_the_same_whenever_they_are_made_and_stored() -> None:
    calls = [customer_call(example().payer_id), *invoice_calls(example())]
    again = [customer_call(example().payer_id), *invoice_calls(example())]
    stored = [msgspec.json.decode(msgspec.json.encode(one), type=Call) for one in calls]
    assert calls == again == stored
    assert msgspec.json.encode(calls) == msgspec.json.encode(stored)


def test_no_two_calls_share_a_key() -> None:
    one = example()
    calls = [
        customer_call(one.payer_id),
        *invoice_calls(one),
        void_call(one.invoice_id),
        credit_note_call(LINE, Decimal(1), "USD"),
    ]
    keys = [call.key(number) for call in calls for number in (0, 1)]
    assert len(set(keys)) == len(keys) == 2 * 9
    assert all(len(key) < 255 for key in keys)


def test_a_call_goes_out_with_the_ids_of_stripe_that_it_needs() -> None:
    one = example()
    draft, item, *_, finalize = invoice_calls(one)
    assert request_of(draft, IDS).params["customer"] == "cus_1"
    assert "invoice" not in request_of(draft, IDS).params
    assert request_of(item, IDS).params["invoice"] == "in_1"
    assert request_of(finalize, IDS).path == "/v1/invoices/in_1/finalize"
    assert request_of(void_call(one.invoice_id), IDS).path == "/v1/invoices/in_1/void"
    for call in (draft, item, finalize):
        with pytest.raises(ValueError, match="not known yet"):
            request_of(call, Ids())


@pytest.mark.parametrize(
    ("amount", "currency", "units"),
    [
        ("499.00", "USD", 49900),
        ("-0.01", "EUR", -1),
        ("499", "JPY", 499),
        ("499", "ISK", 49900),
        ("499", "MGA", 499),
        ("1.230", "KWD", 1230),
        ("90071992547409.93", "USD", 9007199254740993),
    ],
)
def test_amounts_are_counted_as_stripe_counts_them(amount: str, currency: str, units: int) -> None:
    assert minor_units(Decimal(amount), currency) == units


@pytest.mark.parametrize(
    ("amount", "currency"),
    [("1.005", "USD"), ("1.5", "JPY"), ("10.50", "MGA"), ("1.234", "KWD"), ("5", "UGX")],
)
def test_an_amount_that_stripe_cannot_hold_is_not_rounded_but_refused(
    amount: str, currency: str
) -> None:
    with pytest.raises(NotSendable):
        minor_units(Decimal(amount), currency)


def test_an_invoice_whose_lines_do_not_sum_to_it_is_not_sent() -> None:
    wrong = msgspec.structs.replace(example(), total=Decimal("466.28"))
    with pytest.raises(NotSendable, match="sum"):
        invoice_calls(wrong)


@pytest.mark.parametrize("amount", ["0", "-1.00"])
def test_a_credit_note_is_over_something(amount: str) -> None:
    with pytest.raises(NotSendable):
        credit_note_call(LINE, Decimal(amount), "USD")


def test_a_description_is_of_fixed_words_and_a_number() -> None:
    lines = [
        BilledLine(line_id=LINE, kind="base_fee", amount=Decimal(1)),
        BilledLine(
            line_id=LINE, kind="usage", usage_type="api_calls", quantity=Decimal("12.50"),
            amount=Decimal(1),
        ),
        BilledLine(
            line_id=LINE, kind="adjustment", usage_type="maria_musterfrau", amount=Decimal(1),
            quantity=Decimal("-3"),
        ),
    ]  # fmt: skip
    calls = invoice_calls(bill(tuple(lines), 0))
    assert [call.params["description"] for call in calls[1:-1]] == [
        "Base fee",
        "Usage: API calls, 12.5",
        "Late usage: other usage, -3",
    ]


def test_a_call_is_sent_again_for_23_hours_and_then_looked_up_first(clock: Clock) -> None:
    attempt = Attempt()
    assert attempt.next(clock.now()) == "send"
    attempt = attempt.sent(clock.now()).failed(stored=False)
    clock.advance(timedelta(hours=22, minutes=59))
    assert attempt.next(clock.now()) == "send"
    attempt = attempt.sent(clock.now())  # a later try does not make Stripe remember longer
    clock.advance(timedelta(minutes=1))
    assert attempt.next(clock.now()) == "look_up"


def test_what_stripe_keeps_as_failed_is_looked_up_and_then_sent_under_a_key_of_its_own(
    clock: Clock,
) -> None:
    attempt = Attempt().sent(clock.now()).failed(stored=True).failed(stored=False)
    assert attempt.next(clock.now()) == "look_up"
    again = attempt.nothing_found()
    assert (again.number, again.since, again.next(clock.now())) == (1, clock.now(), "send")


def test_nothing_is_looked_up_before_the_last_try_must_show(clock: Clock) -> None:
    attempt = Attempt().sent(clock.now())
    soon = clock.now() + timedelta(seconds=1)
    assert attempt.not_before(soon) == soon, "the same key may be sent at once"
    assert attempt.failed(stored=True).not_before(soon) == clock.now() + SETTLED
    first = clock.now()
    clock.advance(KEY_KEPT - timedelta(seconds=1))
    attempt = attempt.sent(clock.now())
    assert attempt.not_before(first + KEY_KEPT) == clock.now() + SETTLED
    clock.advance(2 * SETTLED)
    assert attempt.not_before(clock.now()) == clock.now()


@pytest.mark.parametrize(
    ("amount", "currency"),
    [("499.60", "USD"), ("500", "JPY"), ("500", "ISK"), ("1.230", "KWD"), ("7", "MGA")],
)
def test_an_amount_is_read_as_it_was_sent(amount: str, currency: str) -> None:
    assert amount_of(minor_units(Decimal(amount), currency), currency) == Decimal(amount)
