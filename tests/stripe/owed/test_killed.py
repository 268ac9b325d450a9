"""A real ledger is killed between sending and noting, at each of its requests, and started anew."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
from aiohttp import web

from ledger import store
from ledger.domain.stripe_event import StripeEvent
from ledger.settings import Settings
from lua.connection import RedisConnection
from tests.stripe.asked import asked
from tests.stripe.bills import of_one_line
from tests.stripe.owed.shop import Shop
from tests.stripe_fake import openapi
from tests.stripe_fake.clock import Clock
from tests.stripe_fake.faults import Fault
from tests.stripe_fake.server import API_KEY, FakeStripe

ROOT = Path(__file__).resolve().parents[3]
BILL = of_one_line(1)

Moment = Literal["before the effect", "after the effect", "as the answer leaves", "before it notes"]
MOMENTS: tuple[Moment, ...] = Moment.__args__  # type: ignore[attr-defined]
DELIVERY = {
    "customer": r"post /v1/customers",
    "invoice": r"post /v1/invoices",
    "item": r"post /v1/invoiceitems",
    "total": r"get /v1/invoices/\w+",
    "finalize": r"post /v1/invoices/\w+/finalize",
}
QUESTION, VOID = r"get /v1/invoices/\w+", r"post /v1/invoices/\w+/void"
# What the ledger changes once it has the answer. Nothing is noted of the look at a draft's total.
CALL = "SELECT FROM stripe_calls WHERE done_at IS NULL ORDER BY call_id LIMIT 1 FOR UPDATE"
INVOICE = "SELECT FROM invoices FOR UPDATE"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One kill always; every request at every moment when asked for."""
    if "moment" in metafunc.fixturenames:
        everything = asked(metafunc.config)
        cases = [(one, list(DELIVERY), True) for one in MOMENTS]
        metafunc.parametrize(
            ("moment", "requests", "to_the_end"),
            cases if everything else [("before it notes", ["invoice"], False)],
            ids=[one for one, *_ in cases] if everything else ["some"],
        )


class Gate(FakeStripe):
    """Holds the first request of a kind until it is let go."""

    path: str | None = None

    def __init__(self, spec: openapi.Spec, clock: Clock) -> None:
        super().__init__(spec, clock)
        self.released = asyncio.Event()

    def close_at(self, path: str) -> None:
        self.path = path
        self.reached, self.released, self.answered = (asyncio.Event() for _ in range(3))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self.path is None or not re.fullmatch(
            self.path, f"{request.method.lower()} {request.path}"
        ):
            return await super()._handle(request)
        self.path = None
        self.reached.set()
        await self.released.wait()
        answer = await super()._handle(request)
        self.answered.set()
        return answer


@pytest.fixture
async def fake(clock: Clock) -> AsyncIterator[Gate]:
    started = Gate(openapi.load(), clock)
    await started.start()
    yield started
    started.released.set()  # else a test that failed would wait a minute for what it held
    await started.close()
    assert (started.wrong, started.leaks) == ([], [])


class Ledgers:
    """`python -m ledger`, again and again."""

    def __init__(self, shop: Shop, gate: Gate, settings: Settings) -> None:
        self._shop, self._gate, self._settings = shop, gate, settings

    async def killed(self, moment: Moment, path: str, noted: str | None) -> None:
        """Runs one until that request, and no longer."""
        gate = self._gate
        gate.close_at(path)
        async with self._running(gate.reached.wait) as process:
            if moment == "before the effect" or noted is None:
                process.kill()
            elif moment == "after the effect":
                gate.faults = [Fault.TIME_OUT_AFTER]
                gate.released.set()
                await until(self._effect_is_done)
                process.kill()
            elif moment == "as the answer leaves":
                gate.released.set()
                await gate.answered.wait()
                process.kill()
            else:
                async with self._shop.sql.transaction():
                    await self._shop.sql.execute(noted)
                    gate.released.set()
                    await until(self._waits_for_a_lock)
                    process.kill()
                    await process.wait()
            await process.wait()
        gate.released.set()
        await self._let_claims_run_out()

    async def done(self) -> None:
        """Runs one until nothing is owed; it ends as it is told to."""
        async with self._running(lambda: until(self._nothing_is_owed)) as process:
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0

    @asynccontextmanager
    async def _running(
        self, is_there: Callable[[], Awaitable[object]]
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        settings = self._settings
        environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url,
            "PARTITIONS": str(settings.partitions),
            "STRIPE_API_KEY": API_KEY,
            "STRIPE_API_BASE": self._gate.url,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "ledger", env=environ, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(60):
                await is_there()
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _effect_is_done(self) -> bool:
        return self._gate.faults == []  # taken by the request, which is carried out at once

    async def _waits_for_a_lock(self) -> bool:
        return bool(
            await self._shop.connections[0].fetchval(
                "SELECT COUNT(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )

    async def _nothing_is_owed(self) -> bool:
        sql = self._shop.sql
        calls = await sql.fetchval("SELECT COUNT(*) FROM stripe_calls WHERE done_at IS NULL")
        unowed = await store.stripe_calls.unowed(sql, 1)
        return not calls and not unowed and not (await store.stripe_events.state(sql)).waiting

    async def _let_claims_run_out(self) -> None:
        """As if so long had passed: a dead ledger's claims are of nobody."""
        sql = self._shop.sql
        await sql.execute("UPDATE stripe_calls SET next_attempt_at = NOW() WHERE done_at IS NULL")
        await sql.execute("UPDATE stripe_looks SET not_before = NOW()")


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await is_so():  # noqa: ASYNC110 - another process, no event
            await asyncio.sleep(0.01)


async def test_a_ledger_killed_at_a_request_is_followed_by_one_that_finishes_it_once(
    shop: Shop, fake: Gate, settings: Settings, redis: RedisConnection,
    moment: Moment, requests: list[str], to_the_end: bool,
) -> None:  # fmt: skip
    ledgers = Ledgers(shop, fake, settings)
    await shop.issue(BILL)
    for one in requests:
        await ledgers.killed(moment, DELIVERY[one], None if one == "total" else CALL)
    await ledgers.done()
    assert await shop.holds_once(BILL) == "open"
    if to_the_end:
        await asked_and_voided(shop, ledgers, moment)
    assert await shop.parked() == []
    assert (await shop.events())["invoice_delivered"] == 1


async def asked_and_voided(shop: Shop, ledgers: Ledgers, moment: Moment) -> None:
    """Killed as it asks what became of the invoice, and as it voids it."""
    [there] = shop.ours("invoice", BILL.invoice_id)
    told = StripeEvent("evt_1", "invoice.payment_failed", there["id"], shop.clock.now())
    await store.stripe_events.insert(shop.sql, told, shop.clock.now())
    await ledgers.killed(moment, QUESTION, INVOICE)
    await ledgers.done()
    await shop.void(BILL.invoice_id)
    await ledgers.killed(moment, VOID, CALL)
    await ledgers.done()
    assert await shop.holds_once(BILL) == "void"
    assert (await shop.events())["invoice_void_delivered"] == 1
    outcomes = await store.payments.outcomes(shop.sql)
    assert {**outcomes, "void": 0} == {"failed": 1, "void": 0}
