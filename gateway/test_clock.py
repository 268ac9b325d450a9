"""Moves the service's time forward and does what falls due: for tests of months in seconds."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec

from gateway.auth import Action, Principal
from gateway.messages import Instant, Request, Response, decode, encoder
from gateway.problems import Kind, Problem, unavailable
from ledger import clock, db, service_time, store
from ledger.cycle import Cycle
from ledger.drain import Drain
from ledger.settings import Settings
from ledger.supersede import Superseder
from lua.cluster import Cluster
from lua.connection import RedisConnection, RedisUnavailable
from lua.scripts import Scripts

ROUNDS = 1000  # of closing, draining and invoicing: years of a few subscriptions
DUNNING_S = 10  # a running ledger needs 2; without one nobody does it
LOOK_S = 0.05


class ClockRequest(Request):
    advance_to: Instant


class ClockAnswer(Response):
    now: datetime
    steps: int  # periods closed and invoiced


class TestClock:
    """`POST /test-clock`, free of HTTP."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def advance(self, principal: Principal, body: bytes) -> bytes:
        principal.reach(Action.CHANGE)
        to = decode(_decoder, body).advance_to
        try:
            return encoder.encode(await self._advance(to.astimezone(UTC)))
        except OverflowError:
            raise Problem(Kind.INVALID_REQUEST, "advance_to is out of range") from None
        except service_time.BehindTime:
            raise Problem(Kind.CONFLICT, "the service's time is later already") from None
        except (*db.UNAVAILABLE, RedisUnavailable):
            raise unavailable(
                "Redis or Postgres does not answer; say it again", outcome_unknown=True
            ) from None

    async def _advance(self, to: datetime) -> ClockAnswer:
        settings = self._settings
        redis = Cluster(settings.redis_url, RedisConnection)
        connection = await db.connect(settings.database_url)
        try:
            scripts = Scripts(redis)
            await service_time.advance(connection, scripts, settings.partitions, to)
            drain = Drain(connection, scripts, settings.stream_retention_seconds)
            cycle = Cycle(
                connection,
                Superseder(scripts, settings.default_tier, settings.partitions),
                grace=settings.invoice_grace,
                park_above=settings.invoice_park_above,
            )
            steps = 0
            for _ in range(ROUNDS):
                drained = await drain.run_once(range(settings.partitions))
                made = await cycle.run_once(await service_time.now(connection))
                steps += made
                if not drained and not made:
                    break
            await self._wait_for_dunning(connection)
            return ClockAnswer(now=await service_time.now(connection), steps=steps)
        finally:
            await connection.close(timeout=1)
            await redis.close()

    async def _wait_for_dunning(self, connection: db.Connection) -> None:
        """Only a ledger asks Stripe: until it has, for every invoice of which a step is due."""
        if self._settings.stripe_api_key is None:
            return
        until = clock.monotonic() + DUNNING_S
        while clock.monotonic() < until:
            now = await service_time.now(connection)
            if not await store.stripe_looks.steps_wait(connection, now):
                return
            await asyncio.sleep(LOOK_S)


_decoder = msgspec.json.Decoder(ClockRequest)
