"""A fake Stripe, and our adapter that talks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ledger.stripe_api import StripeApi
from tests.stripe.asked import asked
from tests.stripe.delivery import Delivery
from tests.stripe_fake import openapi
from tests.stripe_fake.clock import Clock
from tests.stripe_fake.server import API_KEY, FakeStripe

# Long enough for an answer that comes; what never comes is waited for so long.
DEADLINE_S = 0.15
PER_TEST = 25
ALWAYS, ASKED = 1, 40


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A few histories always; a thousand when asked for, by ``./run test stripe``."""
    if "seeds" in metafunc.fixturenames:
        tests = ASKED if asked(metafunc.config) else ALWAYS
        firsts = [n * PER_TEST for n in range(tests)]
        metafunc.parametrize("seeds", [range(one, one + PER_TEST) for one in firsts], ids=str)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def fake(clock: Clock) -> AsyncIterator[FakeStripe]:
    started = FakeStripe(openapi.load(), clock)
    await started.start()
    yield started
    await started.close()
    assert (started.wrong, started.leaks) == ([], [])


@pytest.fixture
async def api(fake: FakeStripe) -> AsyncIterator[StripeApi]:
    """With the service's own deadlines."""
    made = StripeApi(API_KEY, fake.url)
    yield made
    await made.close()


@pytest.fixture
async def hasty(fake: FakeStripe) -> AsyncIterator[StripeApi]:
    """One that does not wait long for an answer."""
    made = StripeApi(API_KEY, fake.url, answer_s=DEADLINE_S)
    yield made
    await made.close()


@pytest.fixture
def delivery(hasty: StripeApi, clock: Clock) -> Delivery:
    return Delivery(hasty, clock)
