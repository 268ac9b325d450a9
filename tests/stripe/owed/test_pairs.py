"""Every request of a delivery meets every fault, and on the next try every other."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import NamedTuple

import pytest

from ledger.stripe_api import StripeApi
from tests.stripe.asked import asked
from tests.stripe.bills import of_one_line
from tests.stripe.owed.shop import Shop
from tests.stripe_fake.faults import Fault
from tests.stripe_fake.server import FakeStripe

FAULTS = list(Fault)
PATHS = {
    "customer": r"post /v1/customers",
    "invoice": r"post /v1/invoices",
    "item": r"post /v1/invoiceitems",
    "finalize": r"post /v1/invoices/\w+/finalize",
    "void": r"post /v1/invoices/\w+/void",
    "total": r"get /v1/invoices/\w+",  # before a draft is finalised
}
# Each call as it is sent, and as it is looked up after Stripe has forgotten its key.
PLACES = [*((one, False) for one in PATHS), *((one, True) for one in PATHS if one != "total")]


class Meeting(NamedTuple):
    """What happens to one request of an invoice, and then to the next try."""

    operation: str
    is_look_up: bool
    first: Fault
    second: Fault


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each fault twice and each request at least once; all pairs when asked for."""
    if "meetings" not in metafunc.fixturenames:
        return
    if asked(metafunc.config):
        rows = [
            [Meeting(*place, first, second) for second in FAULTS]
            for place in PLACES
            for first in FAULTS
        ]
    else:
        count = len(FAULTS)
        rows = [
            [
                Meeting(*PLACES[n % len(PLACES)], FAULTS[n], FAULTS[(5 * n + 3) % count])
                for n in range(count)
            ]
        ]
    metafunc.parametrize("meetings", rows, ids=[row_id(row) for row in rows])


def row_id(row: list[Meeting]) -> str:
    if len({one.first for one in row}) > 1:
        return "some"
    one = row[0]
    return f"{one.operation} {'looked up' if one.is_look_up else 'sent'}-{one.first.name.lower()}"


class Meets:
    """What the fake chooses: nothing until the request comes, then one fault after the other."""

    def __init__(self, fake: FakeStripe, one: Meeting) -> None:
        self._fake = fake
        self._path = re.compile(PATHS[one.operation])
        self._begun = False
        self.left = [*([Fault.FORGET] if one.is_look_up else []), one.first, one.second]

    def __call__(self) -> Fault | None:
        seen = self._fake.seen[-1]
        self._begun = self._begun or bool(self._path.fullmatch(f"{seen.method} {seen.path}"))
        return self.left.pop(0) if self._begun and self.left else None


async def test_a_request_that_meets_one_fault_and_then_another_is_done_once(
    shop: Shop, hasty: StripeApi, meetings: list[Meeting]
) -> None:
    shop.api = hasty
    shop.work = shop.worker(shop.sql)
    shop.fake.books.lists_behind = timedelta(minutes=1)
    for number, one in enumerate(meetings):
        bill = of_one_line(number)
        await shop.issue(bill)
        if one.operation == "void":
            await shop.deliver()
            await shop.void(bill.invoice_id)
        meets = shop.fake.choose = Meets(shop.fake, one)
        await shop.deliver(pause=lambda: timedelta(minutes=1))
        assert meets.left == [], f"{one}: not met"
        wanted = "void" if one.operation == "void" else "open"
        assert await shop.holds_once(bill) == wanted, one
        assert await shop.parked() == [], one
