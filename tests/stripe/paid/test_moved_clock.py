"""POST /test-clock and the steps of what is not paid, which only a ledger takes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from gateway import test_clock
from ledger import loops, service_time, store
from ledger.settings import Secret, Settings
from tests.stripe.paid.conftest import Till
from tests.stripe_fake.faults import Fault
from tests.stripe_fake.server import API_KEY, FakeStripe


@pytest.fixture
def settings(settings: Settings, fake: FakeStripe) -> Settings:
    return msgspec.structs.replace(
        settings, stripe_api_key=Secret(API_KEY), stripe_api_base=fake.url, test_clock=True
    )


async def a_week_later(till: Till) -> dict[str, int]:
    """The steps at which invoices are, as soon as it has answered."""
    service = till.months.service
    to = await service_time.now(till.sql) + timedelta(days=7, minutes=1)
    body: dict[str, Any] = {"advance_to": to.isoformat()}
    status, *_ = await service.post("/test-clock", body, headers=service.token("finance"))
    assert status == 200
    return await store.payments.owed_by_step(till.sql)


async def test_steps_that_fall_due_are_taken_before_it_answers(
    till: Till, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "STRIPE_S", 0.2)
    monkeypatch.setattr(test_clock, "DUNNING_S", 60)
    till.fail()
    await till.tell()
    await till.look()
    stop = asyncio.Event()
    ledger = asyncio.ensure_future(loops.run(settings, stop))
    try:
        assert await a_week_later(till) == {"blocked": 1}
    finally:
        stop.set()
        await ledger


async def test_it_answers_though_no_ledger_takes_them_or_stripe_does_not_say(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    till.fail()
    await till.tell()
    await till.look()
    monkeypatch.setattr(test_clock, "DUNNING_S", 0)
    assert await a_week_later(till) == {"owed": 1}
    till.fake.choose = lambda: Fault.AWAY
    now = await service_time.now(till.sql)
    assert await store.stripe_looks.steps_wait(till.sql, now)
    await till.work.run_once(now, till.clock.now())
    assert not await store.stripe_looks.steps_wait(till.sql, now)
