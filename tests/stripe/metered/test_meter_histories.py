"""Whatever happens to Stripe, the workers and the usage: Stripe counts each unit once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any, cast
from uuid import UUID

import pytest

from ledger.stripe_api import StripeApi
from tests.ledger.crashes import Crash, CrashingConnection, Tripwire
from tests.stripe.asked import asked
from tests.stripe.dying import DyingApi
from tests.stripe.metered.meters import TYPES, Metered
from tests.stripe.owed.test_histories import fault_of

PER_TEST = 3
ALWAYS, ASKED = 1, 200
# Past every wait, lease and memory of Stripe's; never so long that usage is too old.
MINUTES = [0, 1, 6, 6, 60, 12 * 60, 25 * 60]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A few always; hundreds, and a death at every await instead of every third, when asked for by
    ``./run test stripe``."""
    everything = asked(metafunc.config)
    if "every" in metafunc.fixturenames:
        metafunc.parametrize("every", [1 if everything else 3])
    if "histories" in metafunc.fixturenames:
        firsts = [n * PER_TEST for n in range(ASKED if everything else ALWAYS)]
        metafunc.parametrize("histories", [range(n, n + PER_TEST) for n in firsts], ids=str)


async def killed(metered: Metered, wire: Tripwire) -> None:
    """A ledger that takes and delivers until it dies."""
    connection = cast(Any, CrashingConnection(metered.connections[0], wire))
    api = DyingApi(metered.api, wire)
    with suppress(Crash, asyncio.CancelledError):
        await metered.metering(connection, api).run_once()
        while await metered.worker(connection, api).run_once():
            pass
    await metered.connections[0].reset()  # as the end of its process does


async def test_a_ledger_killed_at_any_await_has_its_usage_counted_once(
    metered: Metered, every: int
) -> None:
    places: list[str] = []
    while True:
        ada = await metered.subscribe(UUID(int=len(places) + 1))
        await metered.use(ada, "3")
        wire = Tripwire(every * len(places))
        await killed(metered, wire)
        metered.clock.advance(timedelta(hours=2))  # past the lease of the dead
        await metered.metering().run_once()
        await metered.deliver()
        assert metered.at_stripe() == await metered.used(), wire.name
        if not wire.tripped:
            break
        places.append(wire.name)
    assert len(places) > 30 / every and {one.split()[1] for one in places} >= {"send", "commit"}
    assert len(metered.fake.meters.events) == len(places) + 1


async def test_any_history_of_faults_kills_corrections_and_months_is_counted_once(
    metered: Metered, hasty: StripeApi, histories: range
) -> None:
    patient = metered.api
    for seed in histories:
        random = Random(seed)
        payers = [UUID(int=1000 * (seed + 1) + n) for n in range(random.randrange(1, 3))]
        subscriptions = [await metered.subscribe(one) for one in payers]
        metered.fake.choose = lambda random=random: fault_of(random)  # type: ignore[misc]
        metered.api = hasty  # what never comes is not waited for
        metered.fake.meters.speechless = bool(random.randrange(2))
        for _ in range(random.randrange(10, 40)):
            await step(metered, random, subscriptions)
        metered.api = patient
        metered.fake.choose = lambda: None
        metered.to_next_month()  # what is less than nothing is sent when its month is over
        await metered.settle()
        assert await metered.parked() == []
        assert metered.at_stripe() == await metered.used(), seed


async def step(metered: Metered, random: Random, subscriptions: list[UUID]) -> None:
    """Some usage, of the month before too, and two ledgers at once, one of which may die."""
    for _ in range(random.randrange(3)):
        units = random.randrange(-3, 9)
        await metered.use(
            random.choice(subscriptions),
            str(units),
            random.choice(TYPES),
            months_ago=int(not random.randrange(4) and metered.clock.now().day < 20),
        )
    other = metered.worker(metered.connections[1], random=random)
    await asyncio.gather(
        killed(metered, Tripwire(random.randrange(80))), metered.metering().run_once()
    )
    await other.run_once()
    metered.clock.advance(timedelta(minutes=random.choice(MINUTES)))
