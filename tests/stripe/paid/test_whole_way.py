"""An invoice from here to Stripe and back, by one running ledger and the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from ledger import loops, store
from ledger.settings import Secret, Settings
from tests.conftest import Service
from tests.invoices.conftest import Months
from tests.stripe.paid.conftest import Till
from tests.stripe_fake.clock import Clock
from tests.stripe_fake.server import API_KEY, FakeStripe


@pytest.fixture
async def till(service: Service, fake: FakeStripe, clock: Clock, api: Any) -> Till:
    """Nothing of it is in Stripe yet."""
    months = Months(service, park_above=1_000_000)
    await months.plan("pro", "499.00")
    await months.create("ada", "pro")
    made = Till(months, fake, clock, api)
    made.invoice_id = (await months.invoices())[-1].invoice_id
    return made


@asynccontextmanager
async def delivered(till: Till, settings: Settings) -> AsyncIterator[None]:
    """A ledger runs, and has brought the invoice into Stripe."""
    config = msgspec.structs.replace(
        settings, stripe_api_key=Secret(API_KEY), stripe_api_base=till.fake.url
    )
    stop = asyncio.Event()
    running = asyncio.ensure_future(loops.run(config, stop))
    try:

        async def is_there() -> bool:
            till.stripe_id = (await till.invoice()).stripe_invoice_id or ""
            return bool(till.stripe_id)

        await until(is_there)
        assert there(till)["status"] == "open"
        yield
    finally:
        stop.set()
        await running


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def told(till: Till) -> None:
    """Everything that Stripe has to tell was told, and is seen to."""
    await till.tell()

    async def is_seen_to() -> bool:
        return (await store.stripe_events.state(till.sql)).waiting == 0

    await until(is_seen_to)


async def is_compared(till: Till) -> bool:
    """The ledger has compared itself with Stripe, as it does once a day."""
    done = "SELECT completed_at IS NOT NULL FROM stripe_reconcile"
    return bool(await till.sql.fetchval(done))


def there(till: Till) -> dict[str, Any]:
    return till.fake.books.get("invoice", till.stripe_id)


async def voids(till: Till) -> int:
    count = "SELECT COUNT(*) FROM stripe_calls WHERE operation = 'void'"
    return int(await till.sql.fetchval(count))


async def test_what_is_delivered_and_paid_there_is_paid_here(
    till: Till, settings: Settings
) -> None:
    async with delivered(till, settings):
        till.pay()
        await told(till)
        await until(lambda: is_compared(till))
    found = await till.invoice()
    assert (found.status, found.amount_paid) == ("paid", Decimal("499.00"))
    assert found.stripe_invoice_id == till.stripe_id
    assert await store.payments.outcomes(till.sql) == {"paid": 1}
    state = await store.stripe_reconcile.state(till.sql)
    assert state is not None and not any(state.findings.values())


async def test_what_finance_voids_is_voided_there_and_nobody_disagrees(
    till: Till, settings: Settings
) -> None:
    async with delivered(till, settings):
        till.fail()
        await told(till)
        assert await till.status() == "past_due"
        service = till.months.service
        path, finance = f"/invoices/{till.invoice_id}/void", service.token("finance")
        status, *_ = await service.post(path, {"reason": "goodwill"}, headers=finance)
        assert status == 200

        async def is_void() -> bool:
            return bool(there(till)["status"] == "void")

        await until(is_void)
        await told(till)
    assert (await till.invoice()).status == "void"
    assert await till.status() == "active"  # nothing is owed any more
    assert await store.payments.owed_by_step(till.sql) == {}
    assert await store.payments.outcomes(till.sql) == {"failed": 1}
    assert await till.audit("invoice_voided") == 1
    assert await voids(till) == 1
    assert await store.stripe_calls.parked(till.sql) == []


async def test_what_stripe_voids_is_void_here_and_stripe_is_not_told_of_it(
    till: Till, settings: Settings
) -> None:
    async with delivered(till, settings):
        till.fake.books.void(till.stripe_id, {})
        await told(till)
    assert (await till.invoice()).status == "void"
    assert await till.audit("invoice_voided") == 1
    assert await voids(till) == 0
    assert await store.payments.outcomes(till.sql) == {"void": 1}
