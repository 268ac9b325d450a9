"""What cannot be delivered waits for a person, who is told, and decides."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import structlog

from gateway import cli
from gateway.operators import deliveries, session
from ledger import logs, store
from ledger.domain.stripe_invoice import OUR_ID
from ledger.settings import Settings
from ledger.stripe_api import StripeApi
from ledger.stripe_key import STOPPED
from tests.stripe.bills import bill, drawn, example
from tests.stripe.owed.shop import Shop

ONE, OTHER = drawn(1), drawn(2)
Run = Callable[..., Any]


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``./run stripe ...``: its exit code."""
    monkeypatch.setattr(logs, "silence", lambda: None)  # of a process of its own

    async def work(*words: str) -> int:
        args = cli._parser("stripe").parse_args(["stripe", *words])
        return await deliveries.deliveries(args, settings)

    return work


async def taken(shop: Shop) -> int:
    """Somebody has made an invoice of that number by hand; the parked call."""
    customer = shop.fake.books.customer({})["id"]
    shop.fake.books.invoice(
        {"customer": customer, "currency": "usd", "number": ONE.number, "days_until_due": "30"}
    )
    await shop.issue(ONE)
    await shop.deliver()
    [parked] = await shop.parked()
    return parked.call_id


async def test_what_stripe_refuses_is_told_once_and_holds_up_its_payer_alone(shop: Shop) -> None:
    second = msgspec.structs.replace(drawn(3), payer_id=ONE.payer_id)
    with structlog.testing.capture_logs() as said:
        await taken(shop)
        await shop.issue(second)
        await shop.issue(OTHER)
        await shop.deliver()
    errors = [one for one in said if one["log_level"] == "error"]
    assert [one["event"] for one in errors] == ["stripe_call_parked"]
    assert errors[0]["reason"] == "refused: invoice_number_taken"
    assert (await shop.events())["stripe_call_parked"] == 1
    assert (await store.stripe_state.outcomes(shop.sql))["parked"] == 1
    assert (await store.stripe_state.look(shop.sql)).parked == 1
    assert await shop.holds_once(OTHER) == "open"
    assert shop.ours("invoice", second.invoice_id) == []


async def test_a_parked_call_is_listed_and_tried_again_when_its_cause_is_mended(
    shop: Shop, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    call_id = await taken(shop)
    capsys.readouterr()  # what the ledger logs
    assert await run("parked") == session.DONE
    line = capsys.readouterr().out
    assert line.startswith(f"{call_id}  ") and "invoice_number_taken" in line and ONE.number in line
    shop.fake.books.all("invoice")[0]["number"] = "of-another-time"
    assert await run("retry", str(call_id), "--actor", "ann") == session.DONE
    await shop.deliver()
    assert await shop.holds_once(ONE) == "open"
    [event] = await shop.sql.fetch(
        "SELECT actor, details FROM audit_events WHERE event_type = 'stripe_call_retried'"
    )
    assert event["actor"] == "ann" and "invoice_number_taken" in event["details"]
    assert await run("retry", str(call_id)) == session.FAILED
    assert f"billing: call {call_id} is not parked" in capsys.readouterr().err
    assert await run("parked") == session.DONE
    assert capsys.readouterr().out == "no call to Stripe is parked\n"


async def test_a_skipped_invoice_lets_the_next_one_of_its_payer_go(
    shop: Shop, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    second = msgspec.structs.replace(drawn(3), payer_id=ONE.payer_id)
    call_id = await taken(shop)
    await shop.issue(second)
    capsys.readouterr()
    assert await run("skip", str(call_id), "--reason", "sent by hand") == session.DONE
    assert capsys.readouterr().out == f"call {call_id}: nothing more is sent of {ONE.number}\n"
    await shop.deliver()
    assert await shop.holds_once(second) == "open"
    assert shop.ours("invoice", ONE.invoice_id) == []
    assert (await store.stripe_state.look(shop.sql)).waiting == 0
    details = await shop.sql.fetchval(
        "SELECT details ->> 'reason' FROM audit_events WHERE event_type = 'stripe_call_skipped'"
    )
    assert details == "sent by hand"
    await shop.void(ONE.invoice_id)
    await shop.deliver()
    assert shop.ours("invoice", ONE.invoice_id) == []


async def test_a_void_of_what_was_skipped_asks_nothing_of_stripe(shop: Shop, run: Run) -> None:
    await shop.issue(ONE)
    while not shop.fake.books.all("invoice"):
        await shop.work.run_once()
    [there] = shop.fake.books.all("invoice")
    there["status"] = "open"  # somebody has finalised it there
    await shop.deliver()
    [parked] = await shop.parked()
    assert (parked.operation, parked.stripe_invoice) == ("item", there["id"])
    assert await run("skip", str(parked.call_id), "--reason", "x") == session.DONE
    seen = len(shop.fake.seen)
    await shop.void(ONE.invoice_id)
    await shop.deliver()
    assert len(shop.fake.seen) == seen and await shop.parked() == []


async def test_nothing_to_retry_is_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("retry", "--all") == session.DONE
    assert capsys.readouterr().out == "no call to Stripe is parked\n"


async def test_with_the_key_of_another_account_customers_are_made_anew(
    shop: Shop, run: Run
) -> None:
    second = msgspec.structs.replace(OTHER, payer_id=ONE.payer_id)
    await shop.issue(ONE)
    await shop.deliver()
    for kind in ("customer", "invoice", "invoiceitem"):
        shop.fake.books.objects[kind].clear()
    await shop.issue(second)
    await shop.deliver()
    assert [one.last_error for one in await shop.parked()] == ["refused: resource_missing"]
    assert await run("retry", "--all") == session.DONE
    await shop.deliver()
    assert await shop.holds_once(second) == "open"


async def test_two_customers_of_one_payer_wait_for_a_person(shop: Shop, run: Run) -> None:
    await shop.issue(ONE)
    for _ in range(2):
        shop.fake.books.customer({"metadata": {OUR_ID: str(ONE.payer_id)}})
    await shop.work.run_once()  # a third: Stripe forgets that it was asked
    await shop.sql.execute("UPDATE stripe_calls SET done_at = NULL, stripe_id = NULL")
    await shop.sql.execute(
        "UPDATE stripe_calls SET attempt = jsonb_set(attempt::JSONB, '{key_spent}', 'true')"
        " WHERE operation = 'customer'"
    )
    await shop.deliver()
    [parked] = await shop.parked()
    assert (parked.operation, parked.last_error) == ("customer", "ambiguous")
    assert await run("skip", str(parked.call_id), "--reason", "x") == session.FAILED
    for one in shop.fake.books.all("customer")[:2]:
        del shop.fake.books.objects["customer"][one["id"]]
    assert await run("retry", "--all") == session.DONE
    await shop.deliver()
    assert await shop.holds_once(ONE) == "open"


async def test_an_invoice_that_stripe_cannot_hold_waits_until_it_can(
    shop: Shop, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = msgspec.structs.replace(example().lines[0], amount=Decimal(5000))
    unsent = bill((line,), 7, "UGX")
    await shop.issue(unsent)
    await shop.deliver()
    [parked] = await shop.parked()
    assert (parked.last_error, shop.fake.seen) == ("not_sendable", [])
    assert await run("retry", str(parked.call_id)) == session.DONE
    await shop.deliver()
    assert [one.last_error for one in await shop.parked()] == ["not_sendable"]
    monkeypatch.setattr("ledger.domain.stripe_invoice._UNKNOWN", set())
    assert await run("retry", "--all") == session.DONE
    await shop.deliver()
    assert await shop.holds_once(unsent) == "open"


async def test_a_refused_api_key_stops_everything_with_one_alarm(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = StripeApi("sk_test_wrong", shop.fake.url)
    refused = [shop.worker(one, wrong) for one in (shop.sql, *shop.connections)]
    for one in (ONE, OTHER, drawn(3), drawn(4)):
        await shop.issue(one)
    with structlog.testing.capture_logs() as said:
        for worker in refused:
            await worker.run_once()
        assert len(shop.fake.seen) == 1
        shop.clock.advance(STOPPED)
        await refused[1].run_once()
    assert [one["event"] for one in said if one["log_level"] == "error"] == ["stripe_key_refused"]
    assert (await store.stripe_state.look(shop.sql)).is_stopped
    assert await shop.parked() == []
    await wrong.close()
    shop.clock.advance(STOPPED)
    await shop.deliver()
    assert not (await store.stripe_state.look(shop.sql)).is_stopped
    for one in (ONE, OTHER, drawn(3), drawn(4)):
        await shop.holds_once(one)


async def test_nothing_that_was_sent_is_kept_as_an_error(shop: Shop) -> None:
    await taken(shop)
    kept = await shop.sql.fetch("SELECT last_error FROM stripe_calls WHERE last_error IS NOT NULL")
    told = await shop.sql.fetch("SELECT details FROM audit_events")
    assert kept and told
    assert "SENT-BY-CALLER" not in f"{kept} {told}"


async def test_the_command_needs_the_database_alone(
    shop: Shop,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(logs, "silence", lambda: None)
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("BILLING_DATA_DIR", str(settings.data_dir))
    monkeypatch.delenv("REDIS_URL", raising=False)
    call_id = await taken(shop)
    capsys.readouterr()
    assert await asyncio.to_thread(cli.main, ["stripe", "parked", "--json"]) == session.DONE
    [row] = msgspec.json.decode(capsys.readouterr().out)
    assert (row["id"], row["operation"], row["invoice"]) == (call_id, "invoice", ONE.number)
    assert row["payer"] == f"user {ONE.payer_id}"
