"""Replies that are lost, callers that hang up, and a Redis that has become slow."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec
import pytest
from aiohttp import ClientError

from bench.relay import Relay
from gateway.lane import CALL_EVENTS, CALLS
from ledger.domain.ids import dev_uuid, usage_id_for_key
from ledger.settings import Settings
from lua.connection import REPLY_TIMEOUT_S, RedisConnection
from tests.conftest import Service, Services
from tests.flow.invariants import Told, check

CALLERS, REQUESTS = 64, 10_000
LOST = 0.02  # of what Redis says, and the connection with it
HANGS_UP = 0.4  # of a request's first tries
LONGEST_WAIT_S = 0.02


@pytest.fixture
async def relay(settings: Settings, redis: RedisConnection) -> AsyncIterator[Relay]:
    async with Relay(settings.redis_url) as started:
        yield started


@pytest.fixture
async def service(services: Services, settings: Settings, relay: Relay) -> Service:
    return await services.start(msgspec.structs.replace(settings, redis_url=relay.url))


def usage(number: int) -> dict[str, Any]:
    return {
        "user_id": f"user-{number % 40}",
        "organization_id": f"clinic-{number % 7}" if number % 3 else None,
        "usage_type": "api_calls",
        "quantity": 1,
        "idempotency_key": f"key-{number}",
    }


async def test_no_answer_goes_astray_and_nothing_counts_twice(
    service: Service, relay: Relay
) -> None:
    """10,000 requests whose callers hang up at random, on a Redis whose replies get lost. A caller
    retries with its key until it is told; what it is told must be about its own request."""
    chance = random.Random(3)
    relay.loses = lambda: chance.random() < LOST
    told, seen = Told(), Counter[str]()
    numbers = iter(range(REQUESTS))

    async def one(number: int) -> None:
        request = usage(number)
        user = dev_uuid(request["user_id"])
        while True:
            patience = chance.random() * LONGEST_WAIT_S if chance.random() < HANGS_UP else 30
            try:
                answer = await asyncio.wait_for(service.post("/usage", request), patience)
            except TimeoutError:
                seen["hung up"] += 1
                continue
            except ClientError:
                seen["connection lost"] += 1
                continue
            status = told.heard(answer)
            seen[f"{status} {answer[1].get('outcome', '')}"] += 1
            if status == 201:
                assert UUID(answer[1]["usage_id"]).bytes == usage_id_for_key(user, f"key-{number}")
                return
            assert status == 503

    async def caller() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    relay.loses = lambda: False
    assert len(told.acked) == REQUESTS
    assert seen["hung up"]
    assert seen["503 unknown"]
    told.unknown = 0  # everything was asked again until it was acknowledged
    await service.drained()
    await check(service, told)
    assert await service.sql.fetchval("SELECT COUNT(*) FROM usage_records") == REQUESTS


async def test_a_slow_redis_is_refused_early_and_forgiven(service: Service, relay: Relay) -> None:
    """More than a slow Redis can decide is refused before it was sent, and nothing is left over
    when it is fast again."""
    told = Told()
    crowd = 6 * CALLS * CALL_EVENTS
    for number in range(40):
        told.heard(await service.post("/usage", usage(number)))
    relay.delay_s = REPLY_TIMEOUT_S / 2  # far from both: a wait in the lane, a reply given up

    async def ask(number: int) -> str:
        status, said, _ = answer = await service.post("/usage", usage(number))
        told.heard(answer)
        return f"{status} {said.get('outcome', '')}"

    said = Counter(await asyncio.gather(*(ask(1000 + number) for number in range(crowd))))
    assert said["201 "] >= CALLS
    assert said["503 not_recorded"] > crowd / 2
    assert set(said) == {"201 ", "503 not_recorded"}
    relay.delay_s = 0.0
    async with asyncio.timeout(10):
        while await ask(1000) != "201 ":
            pass
    again: list[str] = []
    for first in range(0, crowd, CALLERS):  # no second crowd: that could be too much by itself
        numbers = range(1000 + first, 1000 + min(first + CALLERS, crowd))
        again += await asyncio.gather(*map(ask, numbers))
    assert set(again) == {"201 "}
    await service.drained()
    await check(service, told)
    assert len(told.acked) == crowd + 40
