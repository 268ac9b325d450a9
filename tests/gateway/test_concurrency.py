"""Many callers at once: a limit is met exactly, a herd loads once, retries count once."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from ledger import entitlements
from ledger.snapshot import snapshot
from tests.conftest import Service
from tests.ledger.plans import allows, on_plan, organization_on_plan, pool


def usage(user: str, quantity: int = 1, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "usage_type": "api_calls", "quantity": quantity, **more}


async def used(service: Service, path: str, scope: str) -> int:
    _, quota, _ = await service.get(path)
    [found] = [
        one for one in quota["quotas"] if (one["usage_type"], one["scope"]) == ("api_calls", scope)
    ]
    return int(found["used"])


async def test_64_callers_meet_one_users_limit_exactly(service: Service) -> None:
    await on_plan(service.sql, "hot", allows("api_calls", "500"))

    async def caller(number: int) -> list[tuple[int, int, Any]]:
        found = []
        for n in range(8):
            quantity = 1 + (number + n) % 4
            status, said, _ = await service.post("/usage", usage("hot", quantity))
            found.append((status, quantity, said.get("limit")))
        return found

    rounds = await asyncio.gather(*(caller(number) for number in range(64)))
    answers = [one for found in rounds for one in found]
    accepted = sum(quantity for status, quantity, _ in answers if status == 201)
    while accepted < 500:  # what no larger quantity fitted into
        status, _, _ = await service.post("/usage", usage("hot"))
        assert status == 201
        accepted += 1
    assert (await service.post("/usage", usage("hot")))[0] == 429
    assert {status for status, _, _ in answers} == {201, 429}
    assert all(
        limit == {"scope": "user", "usage_type": "api_calls", "window": "month", "limit": 500}
        for status, _, limit in answers
        if status == 429
    )
    assert await used(service, "/quota/hot", "user") == accepted == 500
    await service.drained()
    assert await service.sql.fetchval("SELECT SUM(quantity) FROM usage_records") == 500
    assert await service.sql.fetchval("SELECT MAX(used_after) FROM usage_records") == 500


async def test_64_callers_meet_an_organizations_pool_exactly(service: Service) -> None:
    await organization_on_plan(
        service.sql, "clinic", allows("api_calls", "20"), pool("api_calls", "200")
    )

    async def caller(number: int) -> list[tuple[int, str, str]]:
        user = f"member-{number % 16}"
        found = []
        for _ in range(6):
            status, said, _ = await service.post("/usage", usage(user, organization_id="clinic"))
            found.append((status, user, said["limit"]["scope"] if status == 429 else ""))
        return found

    rounds = await asyncio.gather(*(caller(number) for number in range(64)))
    answers = [one for found in rounds for one in found]
    assert sum(status == 201 for status, _, _ in answers) == 200
    assert {scope for status, _, scope in answers if status == 429} <= {"user", "organization"}
    path = "/quota/member-0?organization_id=clinic"
    assert await used(service, path, "organization") == 200
    for user in {user for _, user, _ in answers}:
        mine = sum(status == 201 for status, who, _ in answers if who == user)
        assert await used(service, f"/quota/{user}?organization_id=clinic", "user") == mine <= 20


async def test_every_refusal_of_a_pool_names_the_pool(service: Service) -> None:
    await organization_on_plan(
        service.sql, "clinic", allows("api_calls", "1000"), pool("api_calls", "50")
    )
    answers = await asyncio.gather(
        *(
            service.post("/usage", usage(f"m{number % 9}", organization_id="clinic"))
            for number in range(64)
        )
    )
    assert sum(status == 201 for status, _, _ in answers) == 50
    assert {
        (said["limit"]["scope"], said["limit"]["limit"], said["quota_remaining"])
        for status, said, _ in answers
        if status == 429
    } == {("organization", 50, 0)}


async def test_a_herd_on_a_cold_account_loads_it_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.post("/usage", usage("warms the connections"))
    loads: list[Any] = []

    async def counted(*args: Any) -> Any:
        loads.append(args[2])
        return await snapshot(*args)

    monkeypatch.setattr(entitlements, "snapshot", counted)
    answers = await asyncio.gather(*(service.post("/usage", usage("cold")) for _ in range(200)))
    assert {status for status, _, _ in answers} == {201}
    assert len(loads) == 1
    assert await used(service, "/quota/cold", "user") == 200


async def test_concurrent_retries_of_one_key_count_once(service: Service) -> None:
    request = usage("eager", idempotency_key="k")
    answers = await asyncio.gather(*(service.post("/usage", request) for _ in range(64)))
    assert {status for status, _, _ in answers} == {201}
    assert len({str(said) for _, said, _ in answers}) == 1
    fresh = [headers for _, _, headers in answers if "Idempotent-Replayed" not in headers]
    assert len(fresh) == 1
    assert await used(service, "/quota/eager", "user") == 1
    assert await service.drained() == 1


async def test_concurrent_other_bodies_of_one_key_count_once(service: Service) -> None:
    answers = await asyncio.gather(
        *(service.post("/usage", usage("torn", 1 + n % 2, idempotency_key="k")) for n in range(32))
    )
    winners = {said["usage_id"] for status, said, _ in answers if status == 201}
    assert len(winners) == 1
    assert sum(status == 422 for status, _, _ in answers) == 16
    assert await used(service, "/quota/torn", "user") in (1, 2)


async def test_a_caller_that_goes_away_takes_no_other_answer_along(service: Service) -> None:
    await on_plan(service.sql, "left", allows("api_calls", "1000"))
    tasks = [
        asyncio.create_task(service.post("/usage", usage("left", idempotency_key=str(n))))
        for n in range(40)
    ]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks[1::2])
    assert {status for status, _, _ in answers} == {201}
    again = [await service.post("/usage", usage("left", idempotency_key=str(n))) for n in range(40)]
    assert {status for status, _, _ in again} == {201}
    assert await used(service, "/quota/left", "user") == 40


async def test_a_batch_of_strangers_is_answered_though_the_ledger_is_silent(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them are asked for at once, and each once: one after the other they would outlast
    the connection."""
    waiting: list[UUID] = []

    async def silent(_: object, user_id: UUID) -> None:
        waiting.append(user_id)
        await asyncio.Event().wait()

    monkeypatch.setattr("gateway.accounts.store.organization_of_user", silent)
    monkeypatch.setattr("gateway.accounts.PATIENCE_S", 0.2)
    records = [usage(f"stranger {number % 100}") for number in range(200)]
    status, said, _ = await service.post("/usage/batch", {"records": records})
    assert (status, said["accepted"], said["rejected"]) == (200, 0, 200)
    assert {one["status"] for one in said["results"]} == {503}
    assert len(waiting) == len(set(waiting)) == 100
