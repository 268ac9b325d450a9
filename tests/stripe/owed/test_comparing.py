"""Comparing goes on though Stripe does not say, and is one ledger's at a time."""

from __future__ import annotations

import asyncio

import pytest

from ledger import store, stripe_pages, stripe_reading
from ledger.domain.stripe_invoice import minor_units
from ledger.reconcile.stripe_daily import EVERY, LEASE, Daily
from ledger.reconcile.stripe_report import StripeReport
from ledger.stripe_api import StripeApi
from ledger.stripe_reading import StripeReading
from tests.stripe.owed.beside import HOUR, ONE, OTHER, delivered, named
from tests.stripe.owed.shop import Shop, at_once
from tests.stripe_fake.faults import Fault
from tests.stripe_fake.server import RETRY_AFTER_S, FakeStripe


async def test_a_limit_of_stripes_is_honoured_and_everything_is_compared(shop: Shop) -> None:
    await delivered(shop, ONE)
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    shop.fake.faults = [Fault.RATE_LIMIT, None, Fault.AWAY, Fault.GARBLE]
    report = await shop.compared(rest=rest)
    assert (report.findings, report.not_compared) == ([], [])
    assert rests == [RETRY_AFTER_S, 1, 2]
    assert report.compared["invoices"] == 1


@pytest.mark.parametrize("fault", [Fault.AWAY, Fault.RATE_LIMIT])
async def test_what_stripe_does_not_say_is_not_compared_and_nothing_is_missing(
    shop: Shop, fault: Fault
) -> None:
    await delivered(shop, ONE)
    shop.fake.choose = lambda: fault
    report = await shop.compared()
    assert report.findings == []
    assert [one.partition(":")[0] for one in report.not_compared] == [
        "events", "customers", "invoices",
    ]  # fmt: skip
    shop.fake.choose = lambda: None


async def test_a_connection_lost_in_the_middle_leaves_what_was_found(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, there = await delivered(shop, ONE, OTHER)
    there["total"] += 1
    monkeypatch.setattr(stripe_pages, "PAGE", 1)
    monkeypatch.setattr(stripe_reading, "TRIES", 1)
    seen = shop.fake.seen
    seen.clear()

    def second_page() -> Fault | None:
        is_page = seen[-1].path == "/v1/invoices" and "starting_after" in seen[-1].params
        return Fault.LOSE_REQUEST if is_page else None

    shop.fake.choose = second_page
    report = await shop.compared()
    assert named(report) == {("different", "total", OTHER.number)}
    [said] = report.not_compared
    assert said.startswith("invoices: Stripe does not say (Unknown")


async def test_a_refused_key_is_said_with_what_it_must_read(shop: Shop, fake: FakeStripe) -> None:
    api = StripeApi("sk_test_of_nobody", fake.url)
    report = await shop.compared(api)
    await api.close()
    assert [one.split(":")[0] for one in report.not_compared] == ["events", "customers", "invoices"]
    assert "refuses STRIPE_API_KEY" in report.not_compared[0]


class Ledgers:
    """Two that look whether it is time."""

    def __init__(self, shop: Shop, database_url: str) -> None:
        reading = StripeReading(shop.api, at_once)
        self._all = [Daily(database_url, one, reading, shop.clock.now) for one in shop.connections]

    async def look(self) -> list[StripeReport]:
        said = await asyncio.gather(*(one.run_once() for one in self._all))
        return [one for one in said if one is not None]


async def test_of_two_ledgers_one_compares_once_a_day_and_again_after_a_failure(
    shop: Shop, database_url: str
) -> None:
    [there] = await delivered(shop, ONE)
    ledgers = Ledgers(shop, database_url)
    assert len(await ledgers.look()) == 1
    assert await ledgers.look() == []
    shop.clock.advance(EVERY)
    there["total"] += 1
    shop.fake.choose = lambda: Fault.AWAY
    [failed] = await ledgers.look()
    assert failed.not_compared
    assert await ledgers.look() == []
    shop.fake.choose = lambda: None
    shop.clock.advance(HOUR)
    [report] = await ledgers.look()
    assert report.counts["different"] == 1
    state = await store.stripe_reconcile.state(shop.sql)
    assert state is not None and state.findings["different"] == 1
    shop.clock.advance(EVERY - HOUR)
    assert await ledgers.look() == []


async def test_a_ledger_that_died_comparing_is_followed_by_another(
    shop: Shop, database_url: str
) -> None:
    now = shop.clock.now()
    assert await store.stripe_reconcile.claim(shop.sql, now, now + LEASE) == 1
    ledgers = Ledgers(shop, database_url)
    assert await ledgers.look() == []
    shop.clock.advance(LEASE)
    assert len(await ledgers.look()) == 1


async def test_what_moves_meanwhile_is_not_told_of(shop: Shop) -> None:
    [there] = await delivered(shop, ONE)
    await shop.sql.execute("UPDATE invoices SET status = 'paid', amount_paid = total")
    there["amount_paid"] = 0
    seen = shop.fake.seen
    seen.clear()

    def paid_once_it_was_listed() -> None:
        if seen[-1].path.startswith("/v1/invoices/"):
            there.update(status="paid", amount_paid=minor_units(ONE.total, "USD"))

    shop.fake.choose = paid_once_it_was_listed
    report = await shop.compared()
    assert report.findings == []
    assert report.totals["USD"].theirs == ONE.total
