"""Whatever happens to Stripe, the workers and the invoices: one object of each, to the cent."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any, cast

import msgspec
import pytest

from ledger.domain.stripe_invoice import Bill
from ledger.invoice_actions import NotPossible
from ledger.stripe_api import StripeApi
from ledger.stripe_delivery import Delivery
from tests.ledger.crashes import CrashingConnection, Tripwire
from tests.stripe.asked import asked
from tests.stripe.bills import drawn, of_one_line
from tests.stripe.dying import DyingApi, survived
from tests.stripe.owed.shop import Shop
from tests.stripe_fake.faults import Fault

PER_TEST = 8
ALWAYS, ASKED = 1, 250
# Time passes between steps, not while the other worker has a request on its way.
FAULTS = [one for one in Fault if one is not Fault.FORGET]
HOURS = [0, 0, 0, 1, 12, 23, 24, 30]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A few always; two thousand, and a death at every await instead of every seventh, when asked
    for by ``./run test stripe``."""
    everything = asked(metafunc.config)
    if "every" in metafunc.fixturenames:
        metafunc.parametrize("every", [1 if everything else 7])
    if "histories" in metafunc.fixturenames:
        tests = ASKED if everything else ALWAYS
        firsts = [n * PER_TEST for n in range(tests)]
        metafunc.parametrize("histories", [range(n, n + PER_TEST) for n in firsts], ids=str)


def dying(shop: Shop, connection: Any, wire: Tripwire) -> Delivery:
    return shop.worker(cast(Any, CrashingConnection(connection, wire)), DyingApi(shop.api, wire))


async def test_a_worker_killed_at_any_await_is_finished_by_the_next(shop: Shop, every: int) -> None:
    places: list[str] = []
    while True:
        bill = of_one_line(len(places))
        await shop.issue(bill)
        wire = Tripwire(every * len(places))
        worker = dying(shop, shop.connections[0], wire)
        while await survived(worker.run_once()):
            pass
        await shop.connections[0].reset()  # as the end of its process does
        places += [wire.name] if wire.tripped else []
        await shop.deliver()
        assert await shop.holds_once(bill) == "open", wire.name
        if not wire.tripped:
            break
    assert len(places) > 60 / every and {one.split()[1] for one in places} >= {"send", "commit"}
    assert (await shop.events())["invoice_delivered"] == len(places) + 1


def fault_of(random: Random) -> Fault | None:
    """Two of five requests meet one; those that a test must wait for are rare."""
    if random.randrange(5) > 1:
        return None
    fault = random.choice(FAULTS)
    return None if fault.waits and random.randrange(6) else fault


async def test_any_history_of_faults_kills_and_voids_leaves_every_object_once(
    shop: Shop, hasty: StripeApi, histories: range
) -> None:
    patient, shop.api = shop.api, hasty  # what never comes is not waited for
    shop.fake.books.lists_behind = timedelta(minutes=1)
    for seed in histories:
        random = Random(seed)
        bills = bills_of(random, seed)
        for bill in bills:
            await shop.issue(bill)
        shop.fake.choose = lambda random=random: fault_of(random)  # type: ignore[misc]
        voided = await History(shop, random, bills).run()
        shop.fake.choose = lambda: None
        await shop.deliver()
        await check(shop, bills, voided)
        shop.clock.advance(shop.fake.books.lists_behind)
        report = await shop.compared(patient)
        assert (report.findings, report.on_their_way, report.not_compared) == ([], [], [])


def bills_of(random: Random, seed: int) -> list[Bill]:
    """Up to three, of up to two payers."""
    bills = [drawn(3 * seed + n) for n in range(random.randrange(1, 4))]
    if len(bills) > 1:
        bills[1] = msgspec.structs.replace(bills[1], payer_id=bills[0].payer_id)
    return bills


class History:
    """Two workers at once, one of them killed now and then, while time passes by the hour."""

    def __init__(self, shop: Shop, random: Random, bills: list[Bill]) -> None:
        self._shop, self._random, self._bills = shop, random, bills
        self._voided: set[str] = set()

    async def run(self) -> set[str]:
        """Numbers of the invoices that were voided."""
        shop, random = self._shop, self._random
        for _ in range(random.randrange(10, 60)):
            wire = Tripwire(random.randrange(60))
            one = dying(shop, shop.connections[0], wire)
            other = shop.worker(shop.connections[1], random=random)
            await asyncio.gather(survived(one.run_once()), other.run_once())
            await shop.connections[0].reset()  # as the end of its process does
            if not random.randrange(25):
                await self._void(random.choice(self._bills))
            shop.clock.advance(timedelta(hours=random.choice(HOURS)))
        return self._voided

    async def _void(self, bill: Bill) -> None:
        with suppress(NotPossible):
            await self._shop.void(bill.invoice_id)
            self._voided.add(bill.number)


async def check(shop: Shop, bills: list[Bill], voided: set[str]) -> None:
    assert await shop.parked() == []
    for bill in bills:
        assert len(shop.ours("customer", bill.payer_id)) <= 1
        if bill.number in voided and not shop.ours("invoice", bill.invoice_id):
            continue  # before anything was sent
        wanted = "void" if bill.number in voided else "open"
        assert await shop.holds_once(bill) == wanted, bill.number
