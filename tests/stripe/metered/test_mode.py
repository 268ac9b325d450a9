"""STRIPE_MODE: an invoice is sent or its usage is metered, never both and never neither."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from asyncpg import SerializationError

from gateway import doctor
from ledger import __main__ as ledger_process
from ledger import db, loops, store, stripe_mode
from ledger.settings import Secret, Settings, StripeMode
from tests.conftest import Service
from tests.invoices.conftest import TYPE, Months
from tests.stripe.metered.meters import Metered
from tests.stripe.owed.test_loop import until
from tests.stripe_fake.server import API_KEY


@pytest.fixture
async def months(service: Service, metered: Metered) -> Months:
    """Begins with invoices, each over what was used."""
    made = Months(service, park_above=1_000_000)
    await made.plan("pro", "0.00", {"usage_type": TYPE, "model": "per_unit", "unit_amount": "1"})
    await switch(metered, "invoices")
    metered.clock.advance(made.now - metered.clock.now())
    return made


async def switch(metered: Metered, mode: StripeMode) -> None:
    await stripe_mode.set_mode(metered.sql, mode, metered.clock.now())


async def end_of_period(months: Months, metered: Metered) -> None:
    """Stripe's time goes along."""
    await months.end_of_period("ada")
    metered.clock.advance(months.now - metered.clock.now())


async def sent(metered: Metered) -> tuple[int, int]:
    """Units that are in Stripe by invoices, and by meters."""
    await metered.settle()
    invoiced = sum(one["total"] for one in metered.fake.books.all("invoice"))
    return invoiced // 100, sum(metered.at_stripe().values())


async def test_what_was_used_and_corrected_over_http_is_counted_and_not_invoiced(
    metered: Metered, months: Months
) -> None:
    await switch(metered, "meters")
    await months.create("ada", "pro")
    usage = await months.use("ada", 12)
    await months.settle()
    assert await sent(metered) == (0, 12)
    status, _, _ = await months.service.post(
        f"/usage/{usage}/corrections",
        {"quantity": -5, "reason": "x"},
        headers={**months.service.token("finance"), "Idempotency-Key": "1"},
    )
    assert status == 201
    await months.settle()
    await end_of_period(months, metered)
    assert await sent(metered) == (0, 7)
    [invoice] = [one for one in await months.invoices() if one.total]
    assert (invoice.metered, invoice.status) == (True, "open")
    config = msgspec.structs.replace(months.service.settings, stripe_mode="meters")
    assert "0 invoices or meter events wait" in await doctor_says(config)
    compared = await metered.compared()
    assert (compared.disagrees, compared.on_their_way) == (False, [])
    await metered.void(invoice.invoice_id)
    assert await sent(metered) == (0, 7)


async def test_each_unit_goes_one_way_when_the_mode_is_changed_between_periods(
    metered: Metered, months: Months
) -> None:
    await months.create("ada", "pro")
    await months.use("ada", 3)
    await end_of_period(months, metered)  # its invoice waits for delivery
    await months.use("ada", 4)
    await months.settle()
    await switch(metered, "meters")
    assert await sent(metered) == (3, 4)
    await months.use("ada", 5)
    await months.settle()
    await end_of_period(months, metered)
    assert await sent(metered) == (3, 9)
    await switch(metered, "invoices")
    await months.use("ada", 6)
    await end_of_period(months, metered)
    assert await sent(metered) == (9, 9)
    await switch(metered, "meters")
    assert await sent(metered) == (9, 9)


async def test_what_no_meter_counts_yet_waits_and_is_not_invoiced_either(
    metered: Metered, months: Months
) -> None:
    metered.fake.meters.all.clear()
    await switch(metered, "meters")
    await months.create("ada", "pro")
    await months.use("ada", 3)
    await end_of_period(months, metered)
    assert await sent(metered) == (0, 0)
    metered.fake.meters.make(f"billing_{TYPE}")
    assert await sent(metered) == (0, 3)


async def test_the_invoice_of_a_period_that_meters_counted_in_is_not_sent(
    metered: Metered, months: Months
) -> None:
    await switch(metered, "meters")
    await months.create("ada", "pro")
    await months.use("ada", 3)
    await months.settle()
    assert await sent(metered) == (0, 3)
    await switch(metered, "invoices")
    await months.use("ada", 4)
    await end_of_period(months, metered)
    assert await sent(metered) == (0, 3)
    assert 4 in [int(one["untaken"]) for one in await metered.sql.fetch("TABLE metered_totals")]


async def test_an_invoice_that_is_written_while_the_mode_changes_is_written_anew(
    metered: Metered, months: Months
) -> None:
    await months.create("ada", "pro")
    await months.use("ada", 3)
    await end_of_period(months, metered)
    [one, *_] = await months.invoices()
    other = metered.connections[0]
    with pytest.raises(SerializationError):
        async with other.transaction(isolation="repeatable_read"):
            await other.fetchval("SELECT COUNT(*) FROM invoices")  # what it sees is of before
            await switch(metered, "meters")
            await store.invoices.insert(other, one)


async def test_a_ledger_with_meters_brings_usage_there_and_everybody_is_told(
    metered: Metered, months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "METERING_S", 0.05)
    await months.create("ada", "pro")
    await months.use("ada", 12)
    await switch(metered, "meters")
    config = msgspec.structs.replace(
        months.service.settings,
        stripe_api_key=Secret(API_KEY),
        stripe_api_base=metered.fake.url,
        stripe_mode="meters",
    )
    stop = asyncio.Event()
    running = asyncio.create_task(loops.run(config, stop))
    try:
        await until(metered, "SELECT SUM(delivered) FROM metered_totals", 12)
    finally:
        stop.set()
        await running
    assert list(metered.at_stripe().values()) == [12]
    assert "STRIPE_MODE is meters" in await doctor_says(config)
    told = await doctor_says(months.service.settings)
    assert "STRIPE_MODE is invoices here, but the ledger was started with meters" in told


async def doctor_says(settings: Settings) -> str:
    return " ".join([one.line async for one in doctor.examine(settings)])


async def test_a_ledger_that_starts_has_as_much_time_to_change_it_as_it_needs(
    settings: Settings, connection: db.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ends(*_: object) -> None:
        return

    await connection.execute(
        "CREATE FUNCTION hurry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF current_setting('statement_timeout') <> '0' THEN RAISE 'no time'; END IF;"
        " RETURN NEW; END $$;"
        "CREATE TRIGGER hurry BEFORE UPDATE ON stripe_mode FOR EACH ROW EXECUTE FUNCTION hurry()"
    )
    monkeypatch.setattr(loops, "run", ends)
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("gc.set_threshold", lambda *_: None)
    config = msgspec.structs.replace(settings, stripe_mode="meters")
    assert await ledger_process.main(config) == 0
    assert await store.metering.mode(connection) == "meters"
