"""The ledger delivers by itself where it has a key, and everybody is told how that goes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import structlog

from gateway import doctor
from ledger import loops
from ledger.domain.money import amount_text
from ledger.domain.stripe_invoice import OUR_ID, minor_units
from ledger.settings import Secret, Settings
from tests.conftest import Service
from tests.invoices.conftest import TYPE, Months
from tests.stripe.bills import drawn
from tests.stripe.owed.shop import Shop
from tests.stripe_fake.faults import Fault
from tests.stripe_fake.server import API_KEY, FakeStripe

ONE, OTHER = drawn(1), drawn(2)


def with_key(settings: Settings, fake: FakeStripe, key: str = API_KEY) -> Settings:
    return msgspec.structs.replace(settings, stripe_api_key=Secret(key), stripe_api_base=fake.url)


async def until(shop: Shop, query: str, expected: Any) -> None:
    async with asyncio.timeout(30):
        while True:
            if await shop.sql.fetchval(query) == expected:
                return
            await asyncio.sleep(0.02)


async def ready(service: Service) -> dict[str, Any]:
    async with service.http.get(f"{service.url}/readyz") as response:
        said: dict[str, Any] = await response.json()
        return said


async def metrics(service: Service) -> dict[str, float]:
    await ready(service)
    async with service.http.get(f"{service.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    told = [one.rsplit(" ", 1) for one in lines if one.startswith("billing_stripe")]
    return {name.removeprefix("billing_stripe_"): float(value) for name, value in told}


async def examined(settings: Settings) -> str:
    return " ".join([one.line async for one in doctor.examine(settings)])


async def test_a_ledger_with_a_key_delivers_and_the_invoice_says_so(
    shop: Shop, service: Service
) -> None:
    await shop.issue(ONE)
    stop = asyncio.Event()
    config = with_key(service.settings, shop.fake)
    running = asyncio.create_task(loops.run(config, stop))
    try:
        await until(shop, "SELECT COUNT(*) FROM invoices WHERE stripe_invoice_id IS NULL", 0)
    finally:
        stop.set()
        await running
    assert await shop.holds_once(ONE) == "open"
    path = f"/invoices/{ONE.invoice_id}"
    status, said, _ = await service.get(path, headers=service.token("finance"))
    [there] = shop.ours("invoice", ONE.invoice_id)
    assert (status, said["stripe_invoice_id"]) == (200, there["id"])
    assert "delivery is on; 0 invoices wait, 0 calls are parked" in await examined(config)


async def test_a_ledger_stops_at_once_although_stripe_does_not_answer(
    shop: Shop, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "CUT_S", 0.1)
    await shop.issue(ONE)
    reached, stop = asyncio.Event(), asyncio.Event()

    def hangs() -> Fault:
        reached.set()
        return Fault.TIME_OUT_BEFORE

    shop.fake.choose = hangs
    running = asyncio.create_task(loops.run(with_key(service.settings, shop.fake), stop))
    await reached.wait()
    stop.set()
    async with asyncio.timeout(20):  # less than a call may take
        await running
    shop.fake.choose = lambda: None
    shop.clock.advance(timedelta(hours=2))
    await shop.deliver()
    await shop.holds_once(ONE)


async def test_without_a_key_nothing_is_sent_and_everybody_is_told(
    shop: Shop, service: Service
) -> None:
    await shop.issue(ONE)
    stop = asyncio.Event()
    with structlog.testing.capture_logs() as said:
        running = asyncio.create_task(loops.run(service.settings, stop))
        await asyncio.sleep(0)
        stop.set()
        await running
    assert "stripe_delivery_off" in [one["event"] for one in said]
    assert (await ready(service))["stripe"] == {"waiting": 1, "parked": 0}
    told = await examined(service.settings)
    assert (
        "STRIPE_API_KEY is not set here; a ledger without it sends nothing; 1 invoices wait" in told
    )
    assert shop.fake.seen == []


async def test_what_is_parked_late_or_stopped_is_a_reason_and_a_metric(
    shop: Shop, service: Service
) -> None:
    await shop.issue(ONE)
    await shop.issue(OTHER)
    shop.fake.books.customer({})
    shop.fake.books.invoice(
        {"customer": "cus_00000000000001", "currency": "usd", "number": ONE.number,
         "days_until_due": "30"}
    )  # fmt: skip
    await shop.deliver()
    await shop.sql.execute("UPDATE invoices SET issued_at = NOW() - INTERVAL '9 hours'")
    await service.drained()
    await shop.sql.execute("INSERT INTO stripe_stop VALUES (TRUE, NOW(), NOW())")
    said = await ready(service)
    assert (said["status"], said["stripe"]) == ("degraded", {"waiting": 1, "parked": 1})
    reasons = " ".join(said["reasons"])
    assert "calls to Stripe are parked: 1; ./run stripe parked lists them" in reasons
    assert "invoices or usage wait to be sent to Stripe for 9 hours: 1" in reasons
    assert "Stripe refuses the API key" in reasons
    told_doctor = await examined(with_key(service.settings, shop.fake))
    assert "calls to Stripe are parked: 1" in told_doctor
    assert "delivery is stopped, Stripe refuses the API key; 1 invoices wait" in told_doctor
    told = await metrics(service)
    assert told["oldest_seconds"] >= 9 * 3600
    sent = len(OTHER.lines) + 3 + 1  # and a customer of the parked one
    expected = {
        'calls_total{outcome="parked"}': 1, 'calls_total{outcome="sent"}': sent,
        "waiting": 1, "parked": 1, "stopped": 1, "events_oldest_seconds": 0,
    }  # fmt: skip
    assert {name: told.get(name) for name in expected} == expected


@pytest.fixture
async def months(service: Service) -> Months:
    return Months(service, park_above=1_000_000)


async def test_what_the_cycle_invoices_is_in_stripe_to_the_cent(shop: Shop, months: Months) -> None:
    cents = {"usage_type": TYPE, "model": "per_unit", "unit_amount": "0.015"}
    await months.plan("pro", "49.00", cents)
    await months.create("ada", "pro")
    await months.create("eve", "pro", organization="clinic")
    await months.use("ada", 151)
    await months.end_of_period("ada")
    [first, *_] = await months.invoices()
    nine = Decimal("9.00")
    await shop.actions.credit(first.invoice_id, nine, "outage", actor="test", now=months.now)
    await months.use("ada", 3)
    await months.end_of_period("ada")
    await shop.deliver()
    invoices = await months.invoices()
    assert len(invoices) >= 6
    payers = {one["id"]: one["metadata"][OUR_ID] for one in shop.fake.books.all("customer")}
    for one in invoices:
        [there] = shop.ours("invoice", one.invoice_id)
        assert there["status"] == "open"
        assert there["total"] == minor_units(one.total, one.currency), amount_text(
            one.total, one.currency
        )
        assert payers[there["customer"]] == str(one.organization_id or one.user_id)
        lines = await months.lines(one)
        assert len(shop.fake.books.items(there["id"])) == len(lines)
    assert len(payers) == 2
    # A credit is an item of the next invoice, and nothing else.
    credits = [one for one in shop.fake.books.all("invoiceitem") if one["amount"] < 0]
    assert [(one["amount"], one["description"]) for one in credits] == [(-900, "Credit")]
    assert shop.fake.books.all("credit_note") == []
