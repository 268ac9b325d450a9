"""A ledger whose usage Stripe's meters count, and workers that bring it there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from ledger import clock as real_clock
from ledger import db, stripe_mode
from ledger.stripe_api import StripeApi
from tests.stripe.metered.meters import TYPES, Metered
from tests.stripe_fake.clock import Clock
from tests.stripe_fake.server import FakeStripe


@pytest.fixture
def clock() -> Clock:
    """In the middle of a month, so that a test decides itself when it crosses an edge."""
    return Clock(real_clock.now().replace(day=15, hour=12))


@pytest.fixture
async def metered(
    fake: FakeStripe, api: StripeApi, clock: Clock, connection: db.Connection, database_url: str
) -> AsyncIterator[Metered]:
    for one in TYPES:
        fake.meters.make(f"billing_{one}")
    await stripe_mode.set_mode(connection, "meters", clock.now())
    async with AsyncExitStack() as stack:
        made = Metered(fake, api, clock, connection)
        for _ in range(2):
            other = await db.connect(database_url)
            stack.push_async_callback(other.close)
            made.connections.append(other)
        yield made
    assert fake.meters.met == 0, "two events of one customer and meter at once"
