"""Events and answers as nobody but an attacker, or a broken Stripe, would give them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ledger import store
from ledger.domain.stripe_event import StripeEvent
from ledger.domain.stripe_invoice import Ids
from ledger.stripe_api import StripeObject
from ledger.stripe_failures import KeyRefused
from tests.stripe.paid.conftest import Till


@pytest.mark.parametrize("year", [1970, 5000])
async def test_a_failure_of_another_age_makes_nobody_lose_access_sooner_or_never(
    till: Till, year: int
) -> None:
    at = datetime(year, 1, 1, tzinfo=UTC)
    event = StripeEvent("evt_1", "invoice.payment_failed", till.stripe_id, at)
    await store.stripe_events.insert(till.sql, event, till.clock.now())
    await till.look()
    issued = (await till.invoice()).issued_at
    owed = await store.payments.owed(till.sql, till.invoice_id)
    assert issued and owed and issued <= owed.owed_since <= till.months.now
    for _ in range(6):
        await till.after(days=1)
    assert await till.use() == (201, None)
    await till.after(days=1)
    assert await till.use() == (403, "past_due")


async def test_a_refused_key_is_tried_once_and_not_with_every_invoice(till: Till) -> None:
    class Refusing:
        asked = 0

        async def invoice(self, ids: Ids) -> StripeObject:
            self.asked += 1
            raise KeyRefused("status 401")

    for number in range(3):
        event = StripeEvent(f"evt_{number}", "invoice.paid", f"in_{number}", till.clock.now())
        await store.stripe_events.insert(till.sql, event, till.clock.now())
    api = Refusing()
    assert await till.worker(api).run_once(till.months.now, till.clock.now()) == 0
    assert api.asked == 1
    till.clock.advance(timedelta(minutes=1))
    await till.look()
    assert (await store.stripe_events.state(till.sql)).waiting == 0


@pytest.mark.parametrize("field", ["due_date", "total", "amount_paid"])
async def test_a_number_that_nothing_can_hold_stops_nobody_elses_invoice(
    till: Till, field: str
) -> None:
    first = till.stripe_id
    await till.open("eve")
    for one in (first, till.stripe_id):
        till.fake.books.fail_payment(one)
    await till.tell()
    till.fake.books.get("invoice", first)[field] = 10**18
    await till.look()
    assert await store.payments.outcomes(till.sql) == {"failed": 1}
    assert (await store.stripe_events.state(till.sql)).waiting == 1
    error = await till.sql.fetchval("SELECT last_error FROM stripe_looks WHERE attempts > 0")
    assert error == "Unknown unreadable answer"
