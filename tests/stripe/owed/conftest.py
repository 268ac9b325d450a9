"""A ledger with invoices that are owed, and workers that deliver them to a fake Stripe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from ledger import clock as real_clock
from ledger import db
from ledger.stripe_api import StripeApi
from tests.stripe.owed.shop import Shop
from tests.stripe_fake.clock import Clock
from tests.stripe_fake.server import FakeStripe


@pytest.fixture
def clock() -> Clock:
    """Finance acts at the real time; a test moves the workers and Stripe ahead of it."""
    return Clock(real_clock.now())


@pytest.fixture
async def shop(
    fake: FakeStripe, api: StripeApi, clock: Clock, connection: db.Connection, database_url: str
) -> AsyncIterator[Shop]:
    async with AsyncExitStack() as stack:
        made = Shop(fake, api, clock, connection)
        for _ in range(2):
            other = await db.connect(database_url)
            stack.push_async_callback(other.close)
            made.connections.append(other)
        yield made
