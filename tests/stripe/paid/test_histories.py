"""Whatever Stripe tells, loses or fails to answer, and whoever dies: here it is as it is there."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from random import Random
from typing import Any, cast

import pytest

from ledger import db, store
from ledger.domain.stripe_event import parse
from ledger.payments import LEASE, POLL, Payments
from ledger.stripe_api import StripeApi
from ledger.supersede import Superseder
from tests.ledger.crashes import CrashingConnection, Tripwire
from tests.stripe.asked import asked
from tests.stripe.dying import DyingApi, survived
from tests.stripe.owed.test_histories import fault_of
from tests.stripe.paid.conftest import Till
from tests.stripe_fake.faults import Fault

PER_TEST, ALWAYS, ASKED = 5, 1, 400
HOURS = [0, 0, 0, 1, 3, 12, 24, 48]
MOST = timedelta(days=25)  # within the first period: what comes after is another invoice's
FAULTS = list(Fault)
LOOKS = 60  # more means that it will never be seen to


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A few always; two thousand histories and all pairs of faults when asked for."""
    everything = asked(metafunc.config)
    if "histories" in metafunc.fixturenames:
        firsts = [n * PER_TEST for n in range(ASKED if everything else ALWAYS)]
        metafunc.parametrize("histories", [range(n, n + PER_TEST) for n in firsts], ids=str)
    if "pairs" in metafunc.fixturenames:
        rows = [[(first, second) for second in FAULTS] for first in FAULTS]
        some = [[(first, FAULTS[-1 - n]) for n, first in enumerate(FAULTS) if not first.waits][:6]]
        chosen = rows if everything else some
        metafunc.parametrize("pairs", chosen, ids=[one[0][0].name.lower() for one in chosen])


async def test_a_question_that_meets_one_fault_and_then_another_is_answered_once(
    till: Till, hasty: StripeApi, pairs: list[tuple[Fault, Fault]]
) -> None:
    worker = till.worker(hasty)  # what never comes is not waited for
    for told, (first, second) in enumerate(pairs, start=1):
        till.fail()
        await hear(till, Random(0))
        till.fake.faults = [first, second]
        for _ in range(LOOKS):
            await worker.run_once(till.months.now, till.clock.now())
            if not (await store.stripe_events.state(till.sql)).waiting:
                break
            till.clock.advance(LEASE)
        assert till.fake.faults == [], (first, second)
        assert await store.payments.outcomes(till.sql) == {"failed": told}, (first, second)
        assert (await till.invoice()).status == "open"
        assert await till.status() == "past_due"


async def test_any_history_of_payments_faults_and_kills_ends_as_stripe_has_it(
    till: Till, hasty: StripeApi, database_url: str, histories: range
) -> None:
    patient = till.api
    others = [await db.connect(database_url) for _ in range(2)]
    try:
        for seed in histories:
            till.fake.choose = lambda: None
            await till.open(f"user-{seed}")
            history = History(till, Random(seed), others)
            till.api = hasty
            await history.run()
            till.api = patient  # what is still to come is waited for
            await history.finish(f"user-{seed}")
    finally:
        for one in others:
            await one.close()


async def hear(till: Till, random: Random, **how: Any) -> set[str]:
    """What Stripe tells now is kept, as the gateway would; ids of payments that failed."""
    failed = set()
    for one in till.fake.webhooks.deliveries(random, **how):
        event = parse(one.body)
        if event is None:
            continue
        await store.stripe_events.insert(till.sql, event, till.clock.now())
        if event.type == "invoice.payment_failed":
            failed.add(event.event_id)
    return failed


class History:
    """Two workers at once, one of them killed now and then, while payments fail and succeed."""

    def __init__(self, till: Till, random: Random, others: list[db.Connection]) -> None:
        self._till, self._random, self._others = till, random, others
        self._failed: set[str] = set()
        self._began = till.clock.now()

    async def run(self) -> None:
        till, random = self._till, self._random
        till.fake.choose = lambda: fault_of(random)
        for _ in range(random.randrange(5, 25)):
            self._happens()
            self._failed |= await hear(till, random, lost=15, twice=25, late=25, shuffled=True)
            await self._look()
            hours = timedelta(hours=random.choice(HOURS))
            if till.clock.now() + hours < self._began + MOST:
                till.clock.advance(hours)
            till.months.now = max(till.months.now, till.clock.now())

    def _happens(self) -> None:
        """Something at Stripe: mostly a payment that fails, at last perhaps how it ends."""
        books, one = self._till.fake.books, self._till.stripe_id
        drawn = self._random.randrange(40)
        if books.get("invoice", one)["status"] != "open":
            return
        if drawn < 12:
            books.fail_payment(one)
        elif drawn == 12:
            books.void(one, {})
        elif drawn == 13:
            books.give_up(one)
        elif drawn < 16:
            books.pay(one, {})

    async def _look(self) -> None:
        till, at = self._till, (self._till.months.now, self._till.clock.now())
        wire = Tripwire(self._random.randrange(60))
        killed = till.worker(
            DyingApi(till.api, wire), cast(Any, CrashingConnection(self._others[0], wire))
        )
        other = till.worker(till.api, self._others[1])
        await asyncio.gather(survived(killed.run_once(*at)), other.run_once(*at))
        await self._others[0].reset()  # as the end of its process does

    async def finish(self, user: str) -> None:
        """Nothing fails any more, nobody dies, and a day goes by."""
        till = self._till
        till.fake.choose = lambda: None
        self._failed |= await hear(till, self._random)
        for wait in (LEASE, timedelta(hours=1), POLL):
            till.clock.advance(wait)
            till.months.now = max(till.months.now, till.clock.now())
            await self._all_looked()
        await self._check(user)

    async def _all_looked(self) -> None:
        till, worker = self._till, self._worker()
        for _ in range(LOOKS):
            if not await worker.run_once(till.months.now, till.clock.now()):
                return
        raise AssertionError("it is looked at for ever")

    def _worker(self) -> Payments:
        return self._till.worker(self._till.api)

    async def _check(self, user: str) -> None:
        till = self._till
        there, here = till.fake.books.get("invoice", till.stripe_id), await till.invoice()
        audit = await self._audit()
        given_up = audit["invoice_uncollectible"]
        assert audit["payment_failed"] == len(self._failed), "each failure is told once"
        assert audit["payment_contradicts"] == 0
        if given_up and there["status"] != "paid":
            assert here.status == "uncollectible"
        else:
            assert here.status == there["status"]
        assert here.amount_paid == (here.total if there["status"] == "paid" else 0)
        assert audit["invoice_paid"] == (here.status == "paid")
        assert audit["invoice_voided"] == (here.status == "void")
        assert given_up <= 1
        assert (await store.stripe_events.state(till.sql)).waiting == 0
        steps = list(await store.payments.steps(till.sql, here.subscription_id))
        assert here.status == "open" or steps == []
        status = await till.status(user)
        assert (status == "past_due") == bool(steps)
        assert status != "expired" or given_up
        blocked = "blocked" in steps
        assert await self._access(user) == ((403, "past_due") if blocked else (201, None))

    async def _audit(self) -> Counter[str]:
        rows = await self._till.sql.fetch(
            "SELECT event_type FROM audit_events WHERE details ->> 'invoice_id' = $1",
            str(self._till.invoice_id),
        )
        return Counter(row["event_type"] for row in rows)

    async def _access(self, user: str) -> tuple[int, Any]:
        """Whether usage is taken, when what a dead worker left undone is done by another."""
        till = self._till
        await till.sql.execute("UPDATE outbox SET next_attempt_at = NOW() WHERE done_at IS NULL")
        service = till.months.service
        superseder = Superseder(service.scripts, "basic", service.settings.partitions)
        await superseder.run_once(till.sql)
        await service.drained()
        return await till.use(user)
