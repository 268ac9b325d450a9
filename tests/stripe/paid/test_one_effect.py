"""In any order, by any number of ledgers, whoever dies: what Stripe tells has one effect."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import permutations
from random import Random
from typing import Any

import msgspec
import pytest

from ledger import db, loops, store
from ledger.domain.stripe_event import StripeEvent, parse
from ledger.domain.stripe_invoice import Ids
from ledger.payments import LEASE
from ledger.settings import Secret, Settings
from ledger.stripe_api import StripeObject
from tests.stripe.asked import asked
from tests.stripe.paid.conftest import Direct, Till
from tests.stripe_fake.server import API_KEY, FakeStripe

SOME = 8  # of the 120 orders every eighth; all when asked for


async def state(till: Till) -> list[Any]:
    """All that must not depend on the order, but for what is counted as it goes by."""
    tables = [
        "SELECT status, amount_paid FROM invoices",
        "SELECT status FROM subscriptions",
        "SELECT owed_since, step FROM dunning WHERE ended_at IS NULL",
        "SELECT event_id, invoice_id FROM stripe_events WHERE done_at IS NOT NULL ORDER BY 1",
        "SELECT payments FROM payment_outcomes WHERE outcome = 'failed'",
    ]
    return [[tuple(row) for row in await till.sql.fetch(one)] for one in tables]


@pytest.mark.parametrize("ends", ["paid", "owed", "void"])
async def test_every_order_of_five_events_comes_to_the_same(
    till: Till, ends: str, pytestconfig: pytest.Config
) -> None:
    for _ in range(4):
        till.clock.advance(timedelta(seconds=7))
        till.fail()
    if ends == "paid":
        till.pay()
    elif ends == "void":
        till.fake.books.void(till.stripe_id, {})
    else:
        till.fail()
    till.months.now = till.clock.now()
    told = [parse(one.body) for one in till.fake.webhooks.deliveries(Random(0))]
    events = [one for one in told if one is not None]
    assert len(events) == 5
    random = Random(1)
    found = []
    orders = list(permutations(events))[:: 1 if asked(pytestconfig) else SOME]
    for order in orders:
        undone = till.sql.transaction()
        await undone.start()
        await deliver(till, order, random)
        found.append(await state(till))
        await undone.rollback()
    assert [one for one in found if one != found[0]] == []
    assert len(found[0][3]) == 5
    assert found[0][2] == ([(events[0].created_at, "owed")] if ends == "owed" else [])


async def deliver(till: Till, order: tuple[StripeEvent, ...], random: Random) -> None:
    """In this order, some again later, and some looked at before the next comes."""
    work = till.worker(Direct(till.fake))
    again = [one for one in order if random.randrange(2)]
    for event in (*order, *again):
        await store.stripe_events.insert(till.sql, event, till.clock.now())
        if not random.randrange(3):
            await work.run_once(till.months.now, till.clock.now())
    await work.run_once(till.months.now, till.clock.now())


async def test_two_ledgers_make_one_effect(till: Till, database_url: str) -> None:
    other = await db.connect(database_url)
    try:
        second = till.worker(Direct(till.fake), other)
        for _ in range(5):
            till.fail()
            await till.tell()
            at = till.months.now, till.clock.now()
            await asyncio.gather(till.work.run_once(*at), second.run_once(*at))
    finally:
        await other.close()
    await till.look()
    assert await store.payments.outcomes(till.sql) == {"failed": 5}
    assert await till.audit("subscription_past_due") == 1
    assert await till.audit("payment_owed") == 1


class Dies:
    """Answers, and is dead before anything came of it."""

    def __init__(self, fake: Any) -> None:
        self._direct = Direct(fake)

    async def invoice(self, ids: Ids) -> StripeObject:
        await self._direct.invoice(ids)
        raise RuntimeError("killed")


async def test_a_ledger_that_dies_between_question_and_effect_is_followed_by_another(
    till: Till,
) -> None:
    till.pay()
    await till.tell()
    with pytest.raises(RuntimeError):
        await till.worker(Dies(till.fake)).run_once(till.months.now, till.clock.now())
    await till.look()
    assert (await till.invoice()).status == "open"  # still claimed
    till.clock.advance(LEASE)
    await till.look()
    assert (await till.invoice()).status == "paid"


async def test_of_two_that_see_an_invoice_due_one_has_it(till: Till) -> None:
    now = till.clock.now()
    claims = [
        await store.stripe_looks.claim(till.sql, till.stripe_id, at, at + LEASE)
        for at in (now, now, now + LEASE)
    ]
    assert claims == [1, None, 2]
    assert await store.stripe_looks.due(till.sql, now, now, 10) == []


class Held:
    """Answers when it is told to."""

    def __init__(self, fake: Any) -> None:
        self._direct = Direct(fake)
        self.asked, self.let_go = asyncio.Event(), asyncio.Event()

    async def invoice(self, ids: Ids) -> StripeObject:
        found = await self._direct.invoice(ids)
        self.asked.set()
        await self.let_go.wait()
        return found


async def test_a_ledger_that_hung_and_wakes_up_late_changes_nothing_more(
    till: Till, database_url: str
) -> None:
    till.fail()
    await till.tell()
    held = Held(till.fake)
    other = await db.connect(database_url)
    try:
        late = till.worker(held, other)
        hung = asyncio.ensure_future(late.run_once(till.months.now, till.clock.now()))
        await held.asked.wait()
        till.clock.advance(LEASE)
        till.pay()
        await till.tell()
        await till.look()
        assert (await till.invoice()).status == "paid"
        held.let_go.set()
        await hung
    finally:
        await other.close()
    assert ((await till.invoice()).status, await till.status()) == ("paid", "active")
    assert await store.payments.outcomes(till.sql) == {"failed": 1, "paid": 1}


async def test_a_running_ledger_does_it_by_itself_and_stops(
    till: Till, fake: FakeStripe, settings: Settings
) -> None:
    till.pay()
    await till.tell()
    stop = asyncio.Event()
    config = msgspec.structs.replace(
        settings, stripe_api_key=Secret(API_KEY), stripe_api_base=fake.url
    )
    ledger = asyncio.ensure_future(loops.run(config, stop))
    async with asyncio.timeout(20):
        while (await till.invoice()).status != "paid":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        stop.set()
        await ledger


async def test_an_effect_that_fails_leaves_nothing_of_itself(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError("killed")

    till.fail()
    await till.tell()
    with monkeypatch.context() as patch:
        patch.setattr("ledger.payments.settle", fails)
        with pytest.raises(RuntimeError):
            await till.work.run_once(till.months.now, till.clock.now())
    assert (await store.stripe_events.state(till.sql)).waiting == 1
    assert await till.audit("payment_failed") == 0
    till.clock.advance(LEASE)
    await till.look()
    assert await till.audit("payment_failed") == 1
