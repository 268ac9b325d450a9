"""What becomes of an invoice and its subscription by what Stripe tells, or does not."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from random import Random

import pytest

from ledger import billing_state, store
from ledger.payments import FORGET, KEPT, POLL
from ledger.wishes import Wish
from tests.stripe.paid.conftest import Till
from tests.stripe_fake.faults import Fault

DAY = timedelta(days=1)


async def test_a_payment_makes_the_invoice_paid(till: Till) -> None:
    till.pay()
    await till.tell()
    await till.look()
    found = await till.invoice()
    assert (found.status, found.amount_paid) == ("paid", Decimal("499.00"))
    assert await till.status() == "active"
    assert await till.audit("invoice_paid") == 1


async def test_a_failed_payment_makes_the_subscription_past_due_and_it_works_on(till: Till) -> None:
    till.fail()
    await till.tell()
    await till.look()
    assert (await till.invoice()).status == "open"
    assert await till.status() == "past_due"
    assert await till.use() == (201, None)
    assert await store.payments.outcomes(till.sql) == {"failed": 1}


async def test_unpaid_for_a_week_it_is_blocked_and_a_payment_opens_it_at_once(till: Till) -> None:
    till.fail()
    await till.tell()
    await till.look()
    await till.after(days=6, hours=23)
    assert await till.use() == (201, None)
    await till.after(hours=1)
    assert await till.use() == (403, "past_due")
    assert await till.audit("subscription_blocked") == 1
    till.pay()
    await till.tell()
    await till.work.run_once(till.months.now, till.clock.now())
    assert await till.use() == (201, None)
    assert await till.status() == "active"


async def test_unpaid_for_two_weeks_it_expires_and_the_invoice_is_uncollectible(till: Till) -> None:
    till.fail()
    await till.tell()
    await till.look()
    for _ in range(14):
        await till.after(days=1)
    assert await till.status() == "expired"
    assert (await till.invoice()).status == "uncollectible"
    assert await till.use() == (201, None)  # by the default plan
    till.pay()
    await till.tell()
    await till.look()
    assert (await till.invoice()).status == "paid"
    assert await till.status() == "expired"


async def test_before_a_step_stripe_is_asked_so_a_lost_payment_blocks_nobody(till: Till) -> None:
    till.fail()
    await till.tell()
    await till.look()
    till.pay()
    till.fake.webhooks.deliveries(Random(0), lost=100)
    await till.after(days=7)
    assert await till.use() == (201, None)
    assert (await till.invoice()).status == "paid"
    assert await till.audit("subscription_blocked") == 0


async def test_while_stripe_does_not_answer_no_step_is_taken(till: Till) -> None:
    till.fail()
    await till.tell()
    await till.look()
    till.fake.choose = lambda: Fault.AWAY
    await till.after(days=8)
    assert await till.use() == (201, None)
    till.fake.choose = lambda: None
    till.clock.advance(timedelta(minutes=11))  # the longest wait
    await till.look()
    assert await till.use() == (403, "past_due")


async def test_nothing_told_for_a_day_it_is_looked_at(till: Till) -> None:
    await till.look()
    till.pay()
    till.fake.webhooks.deliveries(Random(0), lost=100)
    await till.look()
    assert (await till.invoice()).status == "open"
    till.clock.advance(POLL)
    await till.look()
    assert (await till.invoice()).status == "paid"


async def test_under_a_test_clock_a_failure_is_of_the_services_time(till: Till) -> None:
    await till.after(days=20)
    till.fail()
    await till.tell()
    await till.look()
    await till.after(days=6)
    assert await till.use() == (201, None)
    await till.after(days=1)
    assert await till.use() == (403, "past_due")


async def test_what_is_overdue_is_owed_though_no_payment_failed(till: Till) -> None:
    await till.look()
    await till.after(days=29)
    assert await till.status() == "active"
    await till.after(days=1, minutes=1)
    assert await till.status() == "past_due"


async def test_one_that_went_to_stripe_late_is_due_later(till: Till) -> None:
    await till.sql.execute("UPDATE invoices SET due_at = $1", till.months.now - 60 * DAY)
    await till.look()
    assert await till.status() == "active"


async def test_a_void_at_stripe_is_one_here_and_nothing_is_owed(till: Till) -> None:
    till.fail()
    await till.tell()
    await till.look()
    till.fake.books.void(till.stripe_id, {})
    await till.tell()
    await till.look()
    assert ((await till.invoice()).status, await till.status()) == ("void", "active")


async def test_what_stripe_marks_uncollectible_ends_the_subscription(till: Till) -> None:
    till.fail()
    await till.tell()
    await till.look()
    till.fake.books.give_up(till.stripe_id)
    await till.tell()
    await till.look()
    assert ((await till.invoice()).status, await till.status()) == ("uncollectible", "expired")


@pytest.mark.parametrize("why", ["voided here", "credited", "another total", "gone"])
async def test_a_contradiction_is_told_and_changes_nothing(till: Till, why: str) -> None:
    books = till.fake.books
    if why == "voided here":
        await till.sql.execute("UPDATE invoices SET status = 'void'")
        till.pay()
    elif why == "credited":
        await till.sql.execute("UPDATE invoices SET credited = 1")
        books.void(till.stripe_id, {})
    elif why == "another total":
        books.objects["invoice"][till.stripe_id]["total"] = 1
        till.pay()
    else:
        till.fail()
        del books.objects["invoice"][till.stripe_id]
    before = (await till.invoice()).status
    await till.tell()
    await till.look()
    await till.look()
    assert (await till.invoice()).status == before
    assert await till.status() == "active"
    assert await till.audit("payment_contradicts") == 1


async def test_of_two_that_are_owed_both_must_be_paid(till: Till) -> None:
    first = till.stripe_id
    till.fail()
    await till.months.end_of_period("ada")
    _, till.stripe_id = await till.deliver((await till.months.invoices())[-1])
    till.stripe_id, second = first, till.stripe_id
    till.fail()
    till.fake.books.fail_payment(second)
    await till.tell()
    await till.look()
    till.pay()
    await till.tell()
    await till.look()
    assert await till.status() == "past_due"
    till.fake.books.pay(second, {})
    await till.tell()
    await till.look()
    assert await till.status() == "active"


async def test_one_that_was_paused_is_past_due_once_it_goes_on(till: Till) -> None:
    await till.months.act("ada", Wish("pause"))
    till.fail()
    await till.tell()
    await till.look()
    assert await till.status() == "paused"
    await till.months.act("ada", Wish("resume"))
    till.clock.advance(POLL)
    await till.look()
    assert await till.status() == "past_due"


async def test_an_invoice_of_somebody_else_is_left_alone(till: Till) -> None:
    stripe_id, till.stripe_id = till.stripe_id, "in_unknown"
    books = till.fake.books
    books.objects["invoice"]["in_unknown"] = {
        **books.get("invoice", stripe_id),
        "id": "in_unknown",  # a copy in the dashboard has our id too
    }
    till.pay()
    await till.tell()
    await till.look()
    assert (await till.invoice()).status == "open"
    assert (await store.stripe_events.state(till.sql)).waiting == 0


async def test_what_was_told_is_forgotten_after_90_days_and_what_came_of_it_is_not(
    till: Till,
) -> None:
    for _ in range(2):
        till.fail()
        await till.tell()
        await till.look()
    count = "SELECT COUNT(*) FROM stripe_events"
    till.clock.advance(KEPT)
    await till.work.run_once(till.months.now, till.clock.now())
    assert await till.sql.fetchval(count) == 2
    await till.sql.execute(
        "UPDATE stripe_events SET done_at = NULL WHERE event_id ="
        " (SELECT MIN(event_id) FROM stripe_events)"
    )
    till.clock.advance(FORGET)
    till.fake.choose = lambda: Fault.AWAY
    await till.work.run_once(till.months.now, till.clock.now())
    assert await till.sql.fetchval(count) == 1, "what nobody has seen to stays"
    assert await store.payments.outcomes(till.sql) == {"failed": 2}
    assert await till.audit("payment_failed") == 2


async def test_failed_payments_and_what_waits_are_told_to_operators(till: Till) -> None:
    till.fail()
    await till.tell()
    await till.look()
    till.fail()
    await till.tell()
    await till.sql.execute(
        "UPDATE stripe_events SET received_at = received_at - INTERVAL '901 seconds'"
    )
    service = till.months.service
    async with service.http.get(f"{service.url}/readyz") as answer:
        ready = await answer.json()
    assert ready["status"] == "degraded"
    assert "events of Stripe wait for 15 minutes: 1" in ready["reasons"]
    async with service.http.get(f"{service.url}/metrics") as answer:
        told = await answer.text()
    assert 'billing_payments_total{outcome="failed"} 1.0' in told
    assert 'billing_invoices_owed{step="owed"} 1.0' in told
    assert "billing_stripe_events_oldest_seconds 90" in told


async def test_open_invoices_that_stripe_says_nothing_of_are_told_to_operators(till: Till) -> None:
    await till.look()
    await till.sql.execute("UPDATE stripe_looks SET poll_at = NOW() - INTERVAL '7 hours'")
    till.fake.choose = lambda: Fault.AWAY
    await till.look()
    service = till.months.service
    async with service.http.get(f"{service.url}/readyz") as answer:
        reasons = (await answer.json())["reasons"]
    assert "Stripe was not heard about open invoices for 7 hours: 1" in reasons
    async with service.http.get(f"{service.url}/metrics") as answer:
        assert "billing_stripe_looks_oldest_seconds 252" in await answer.text()
    till.fake.choose = lambda: None
    till.clock.advance(timedelta(minutes=11))
    await till.look()
    assert list((await billing_state.look(till.sql)).reasons()) == []
