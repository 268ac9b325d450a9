"""POST /quota/check: the same verdict as recording, and not a trace of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Service
from tests.ledger.plans import allows, on_plan, organization_on_plan, pool


def asked(user: str, quantity: Any = 1, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "usage_type": "api_calls", "quantity": quantity, **more}


async def test_the_answer_has_exactly_the_fields_of_the_contract(shared: Service) -> None:
    status, said, _ = await shared.post("/quota/check", asked("shape", 10.0))
    assert (status, list(said)) == (200, ["allowed", "quota_remaining", "limit"])
    assert said["limit"] == {
        "scope": "user",
        "usage_type": "api_calls",
        "window": "month",
        "limit": 10000,
    }
    assert said["allowed"] is True


async def test_a_check_writes_nothing(shared: Service) -> None:
    await shared.get("/quota/checked")  # loads it
    before = await everything(shared)
    for quantity in (1, 10_000, 10_001):
        assert (await shared.post("/quota/check", asked("checked", quantity)))[0] == 200
    assert await everything(shared) == before


async def everything(shared: Service) -> dict[bytes, bytes]:
    """All of Redis; DUMP shows each value byte for byte."""
    names = await shared.redis.run("KEYS", "*")
    return {name: await shared.redis.run("DUMP", name) for name in names}


@pytest.mark.parametrize("enforcement", ["hard", "soft", "shadow"])
async def test_a_check_agrees_with_the_record_that_follows(
    shared: Service, enforcement: str
) -> None:
    user = f"agrees-{enforcement}"
    await on_plan(shared.sql, user, allows("api_calls", "10", enforcement))
    for quantity in (4, 7, 6, 1, 3):
        _, check, _ = await shared.post("/quota/check", asked(user, quantity))
        status, record, _ = await shared.post("/usage", asked(user, quantity))
        assert check["allowed"] is (status == 201), quantity
        if status == 429:
            assert check["limit"] == record["limit"]
            assert check["quota_remaining"] == record["quota_remaining"]


async def test_a_check_names_the_limit_that_would_bind(shared: Service) -> None:
    await organization_on_plan(
        shared.sql, "binds", allows("api_calls", "8"), pool("api_calls", "5")
    )
    for quantity, allowed, scope, limit in [
        (5, True, "organization", 5),
        (6, False, "organization", 5),
        (9, False, "organization", 5),
    ]:
        _, said, _ = await shared.post(
            "/quota/check", asked("member", quantity, organization_id="binds")
        )
        assert (said["allowed"], said["limit"]["scope"], said["limit"]["limit"]) == (
            allowed,
            scope,
            limit,
        )


async def test_a_check_knows_rate_windows(shared: Service) -> None:
    await on_plan(shared.sql, "windowed", allows("api_calls", None, rate=(3, 3600)))
    await shared.post("/usage", asked("windowed", 3))
    _, said, _ = await shared.post("/quota/check", asked("windowed"))
    assert (said["allowed"], said["limit"]["window"]) == (False, "3600s")


async def test_an_unlimited_type_has_no_limit_to_name(shared: Service) -> None:
    await on_plan(shared.sql, "endless", allows("api_calls", None))
    _, said, _ = await shared.post("/quota/check", asked("endless", 10**12))
    assert said == {"allowed": True, "quota_remaining": None, "limit": None}


@pytest.mark.parametrize(
    "wrong",
    [
        {"usage_type": "nothing"},
        {"quantity": 1.5},
        {"idempotency_key": "k"},
        {"metadata": {}},
    ],
)
async def test_a_wrong_question_is_refused_like_a_wrong_record(
    shared: Service, wrong: dict[str, Any]
) -> None:
    status, said, _ = await shared.post("/quota/check", asked("wrong") | wrong)
    assert (status, said["type"]) == (400, "urn:billing:problem:invalid-usage")


async def test_a_paused_subscription_is_refused(shared: Service) -> None:
    await on_plan(shared.sql, "paused", allows("api_calls", "5"), status="paused")
    status, said, _ = await shared.post("/quota/check", asked("paused"))
    assert (status, said["reason"]) == (403, "paused")
