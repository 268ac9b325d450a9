"""A mixed workload with retries, batches and drains in between keeps every invariant."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.conftest import Service
from tests.flow.invariants import Told, check
from tests.ledger.plans import allows, on_plan, organization_on_plan, pool

WORKERS, STEPS = 12, 25


async def _furnish(service: Service) -> None:
    await organization_on_plan(
        service.sql,
        "tight",
        allows("api_calls", "60"),
        pool("api_calls", "150"),
        allows("conversation_minutes", "40"),
        pool("conversation_minutes", "100", "soft"),
    )
    await organization_on_plan(service.sql, "loose", allows("api_calls", None))
    await on_plan(service.sql, "u0", allows("api_calls", "30"))
    await on_plan(service.sql, "u1", allows("api_calls", "20"), organization="tight")


class Worker:
    """Sends records and batches; repeats some under their key and expects the same answer."""

    def __init__(self, service: Service, seed: int, told: Told) -> None:
        self._service, self._told = service, told
        self._dice = random.Random(seed)
        self._seed = seed
        self._answered: list[tuple[dict[str, Any], Any]] = []

    def _usage(self, step: str) -> dict[str, Any]:
        user = f"u{self._dice.randrange(6)}"
        minutes = self._dice.random() < 0.4
        found: dict[str, Any] = {
            "user_id": user,
            "usage_type": "conversation_minutes" if minutes else "api_calls",
            "quantity": self._dice.choice([0.25, 1.5, 7.01]) if minutes else 1 + step.count("1"),
            "idempotency_key": f"{self._seed}-{step}",
        }
        organization = "tight" if user == "u1" else self._dice.choice(["tight", "loose", None])
        if organization and user != "u0":
            found["organization_id"] = organization
        return found

    async def run(self) -> None:
        for step in range(STEPS):
            choice = self._dice.random()
            if choice < 0.2 and self._answered:
                request, expected = self._dice.choice(self._answered)
                _, said, headers = await self._service.post("/usage", request)
                assert headers.get("Idempotent-Replayed") == "true"
                assert said == expected
            elif choice < 0.4:
                records = [self._usage(f"{step}-{n}") for n in range(self._dice.randrange(1, 9))]
                _, said, _ = await self._service.post("/usage/batch", {"records": records})
                for result in said["results"]:
                    self._told.heard((result["status"], result, {}))
            elif choice < 0.45:
                await self._service.get("/quota/u2?organization_id=tight")
            else:
                request = self._usage(str(step))
                answer = await self._service.post("/usage", request)
                assert self._told.heard(answer) in (201, 429)
                if answer[0] == 201:
                    self._answered.append((request, answer[1]))


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_mixed_workload_keeps_every_invariant(service: Service, seed: int) -> None:
    await _furnish(service)
    told = Told()
    done = asyncio.Event()

    async def drain() -> None:
        while not done.is_set():
            await service.drain.run_once(range(service.settings.partitions))

    draining = asyncio.create_task(drain())
    workers = [Worker(service, seed * 1000 + n, told) for n in range(WORKERS)]
    await asyncio.gather(*(worker.run() for worker in workers))
    done.set()
    await draining
    await check(service, told)
    await service.drained()
    await check(service, told)
    assert len(told.acked) > 100


async def test_losing_redis_in_the_middle_passes_no_limit(service: Service) -> None:
    await _furnish(service)
    for part in range(3):
        workers = [Worker(service, 100 * part + n, Told()) for n in range(4)]
        await asyncio.gather(*(worker.run() for worker in workers))
        if part != 1:
            await service.drained()
        await service.redis.run("FLUSHALL")
        for _ in range(3):
            await service.drained()
        await check(service)
