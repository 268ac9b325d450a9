"""The example and the failures in docs/stripe.md are what the product makes and raises."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import msgspec

from ledger import stripe_failures
from ledger.domain import stripe_egress, stripe_invoice, stripe_signature
from ledger.domain.dunning import SCHEDULE
from ledger.domain.stripe_event import EVENT_TYPES
from ledger.domain.stripe_invoice import (
    Bill,
    BilledLine,
    Ids,
    NotSendable,
    customer_call,
    invoice_calls,
    minor_units,
    request_of,
)
from tests.stripe_fake.faults import Fault

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT, RELIABILITY = ((DOCS / f"{name}.md").read_text() for name in ("stripe", "reliability"))
ANY = UUID("1c6f7f0e-52a5-4f5e-8a2e-0d3b6f1f5a01")
IDS = Ids(customer="cus_1", invoice="in_1")


def test_the_example_is_sent_as_printed() -> None:
    [block] = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    example: dict[str, Any] = msgspec.json.decode(block)
    said = example["invoice"]
    for line in said["lines"]:
        line["line_id"] = ANY
    bill = Bill(
        invoice_id=ANY,
        payer_id=ANY,
        number=said["number"],
        currency=said["currency"],
        total=Decimal(said["total"]),
        days_until_due=30,
        lines=tuple(msgspec.convert(line, BilledLine) for line in said["lines"]),
    )
    made = [request_of(call, IDS) for call in (customer_call(ANY), *invoice_calls(bill))]
    for request in made:
        request.params.pop("metadata", None)
    assert [[request.path, request.params] for request in made] == example["calls"]


def test_the_failures_are_those_that_there_are() -> None:
    cells = re.findall(r"^\| (`\w+`.*?) \|", TEXT, re.M)
    told = {name for cell in cells for name in re.findall(r"`([A-Z]\w+)`", cell)}
    raised = {one.__name__ for one in stripe_failures.StripeFailure.__subclasses__()}
    assert told == raised | {stripe_egress.NotOpaque.__name__, stripe_invoice.NotSendable.__name__}


def test_the_currencies_that_are_not_sent_are_named() -> None:
    flat = " ".join(TEXT.split())
    [listed] = re.findall(r"thousandths\. ([A-Z, ]+ and [A-Z]+) are not sent", flat)
    refused = set()
    for currency in re.findall(r"[A-Z]{3}", listed):
        try:
            minor_units(Decimal(5), currency)
        except NotSendable:
            refused.add(currency)
    assert refused == stripe_invoice._UNKNOWN


def test_there_are_as_many_faults_as_it_says() -> None:
    assert "one of sixteen things" in " ".join(RELIABILITY.split()) and len(Fault) == 16


def test_the_events_are_those_that_are_kept() -> None:
    assert tuple(re.findall(r"^\| `(invoice\.\w+)` \|", TEXT, re.M)) == EVENT_TYPES


def test_the_words_of_a_refused_signature_are_those_that_there_are() -> None:
    [listed] = re.findall(r"with one word: (.*?)\.", TEXT, re.DOTALL)
    assert tuple(re.findall(r"`(\w+)`", listed)) == get_args(stripe_signature.Why)


def test_the_steps_of_dunning_are_on_their_days() -> None:
    told = re.findall(r"^\| (\d+) \| (\w+) \|", TEXT, re.M)
    assert [(timedelta(days=int(day)), step) for day, step in told] == list(SCHEDULE)
