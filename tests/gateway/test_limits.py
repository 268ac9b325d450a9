"""Hard, soft and shadow limits, pools, rate windows, and what callers are told about them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import Service
from tests.ledger.plans import allows, on_plan, organization_on_plan, pool

EXCEEDED = "urn:billing:problem:quota-exceeded"
LIMITED = "urn:billing:problem:rate-limited"


def usage(user: str, quantity: Any = 1, organization: str | None = None) -> dict[str, Any]:
    return {
        "user_id": user,
        "usage_type": "api_calls",
        "quantity": quantity,
        "organization_id": organization,
    }


def until_next_month(now: datetime) -> float:
    first = (now.replace(day=1) + timedelta(days=32)).replace(day=1)
    return (first.replace(hour=0, minute=0, second=0, microsecond=0) - now).total_seconds()


async def calls(shared: Service, user: str, scope: str = "user") -> dict[str, Any]:
    _, quota, _ = await shared.get(f"/quota/{user}")
    [found] = [
        one for one in quota["quotas"] if (one["usage_type"], one["scope"]) == ("api_calls", scope)
    ]
    return dict(found)


async def test_a_hard_limit_is_reached_exactly_and_then_refuses(shared: Service) -> None:
    await on_plan(shared.sql, "hard", allows("api_calls", "5"))
    _, said, _ = await shared.post("/usage", usage("hard", 5))
    assert (said["quota_remaining"], said["quota_exceeded"]) == (0, False)
    before = datetime.now(UTC)
    status, said, headers = await shared.post("/usage", usage("hard"))
    after = datetime.now(UTC)
    assert (status, headers["Content-Type"]) == (429, "application/problem+json")
    assert (said["type"], said["status"], said["title"]) == (EXCEEDED, 429, "Quota exceeded")
    assert said["limit"] == {
        "scope": "user",
        "usage_type": "api_calls",
        "window": "month",
        "limit": 5,
    }
    assert (said["quota_remaining"], said["quota_exceeded"]) == (0, True)
    assert said["instance"] == "/api/v1/billing/usage"
    assert until_next_month(after) - 2 <= int(headers["Retry-After"])
    assert int(headers["Retry-After"]) <= until_next_month(before) + 2


async def test_a_refused_quantity_leaves_the_rest_usable(shared: Service) -> None:
    await on_plan(shared.sql, "rest", allows("api_calls", "5"))
    for quantity, status, remaining in [(3, 201, 2), (3, 429, 2), (2, 201, 0)]:
        got, said, _ = await shared.post("/usage", usage("rest", quantity))
        assert (got, said["quota_remaining"]) == (status, remaining)


async def test_rate_limit_headers_tell_the_tightest_limit(shared: Service) -> None:
    await on_plan(shared.sql, "told", allows("conversation_minutes", "10.5"))
    request = {"user_id": "told", "usage_type": "conversation_minutes", "quantity": 0.75}
    _, said, headers = await shared.post("/usage", request)
    assert said["quota_remaining"] == 9.75
    month = re.fullmatch(r'"monthly";q=10;w=(\d+)', headers["RateLimit-Policy"])
    assert month and int(month[1]) in {days * 86400 for days in (28, 29, 30, 31)}
    left = re.fullmatch(r'"monthly";r=9;t=(\d+)', headers["RateLimit"])
    assert left and 0 < int(left[1]) <= int(month[1])
    _, _, headers = await shared.post("/usage", request | {"quantity": 20})
    assert re.fullmatch(r'"monthly";r=9;t=\d+', headers["RateLimit"])
    assert headers["Retry-After"] == headers["RateLimit"].rpartition("=")[2]


async def test_an_unlimited_plan_has_no_limit_to_tell(shared: Service) -> None:
    await on_plan(shared.sql, "unlimited", allows("api_calls", None))
    status, said, headers = await shared.post("/usage", usage("unlimited", 10**9))
    assert (status, said["quota_remaining"], said["quota_exceeded"]) == (201, None, False)
    assert not {"RateLimit", "RateLimit-Policy"} & set(headers)
    entry = await calls(shared, "unlimited")
    assert (entry["limit"], entry["remaining"], entry["used"]) == (None, None, 10**9)
    assert (entry["exceeded"], entry["overage"]) == (False, 0)


async def test_a_soft_limit_records_and_says_exceeded(shared: Service) -> None:
    await on_plan(shared.sql, "soft", allows("api_calls", "5", "soft"))
    for quantity, remaining, exceeded in [(5, 0, False), (2, 0, True)]:
        status, said, _ = await shared.post("/usage", usage("soft", quantity))
        assert (status, said["quota_remaining"], said["quota_exceeded"]) == (
            201,
            remaining,
            exceeded,
        )
    entry = await calls(shared, "soft")
    assert (entry["used"], entry["overage"], entry["exceeded"]) == (7, 2, True)
    assert entry["enforcement"] == "soft"


async def test_a_shadow_limit_shows_only_where_quotas_are_read(shared: Service) -> None:
    await on_plan(shared.sql, "shadow", allows("api_calls", "5", "shadow"))
    status, said, headers = await shared.post("/usage", usage("shadow", 7))
    assert (status, said["quota_remaining"], said["quota_exceeded"]) == (201, None, False)
    assert "RateLimit" not in headers
    entry = await calls(shared, "shadow")
    assert (entry["enforcement"], entry["exceeded"], entry["overage"]) == ("shadow", True, 2)


@pytest.mark.parametrize(
    ("cap", "shared_limit", "quantity", "scope", "limit", "left"),
    [
        ("3", "10", 4, "user", 3, 3),
        ("10", "3", 4, "organization", 3, 3),
        ("3", "4", 5, "user", 3, 3),
        (None, "4", 5, "organization", 4, 4),
        ("4", None, 5, "user", 4, 4),
    ],
)
async def test_the_limit_that_bound_is_named(
    shared: Service,
    cap: str | None,
    shared_limit: str | None,
    quantity: int,
    scope: str,
    limit: int,
    left: int,
) -> None:
    clinic = f"clinic-{cap}-{shared_limit}"
    await organization_on_plan(
        shared.sql, clinic, allows("api_calls", cap), pool("api_calls", shared_limit)
    )
    status, said, _ = await shared.post("/usage", usage("member", quantity, clinic))
    assert (status, said["limit"]["scope"], said["limit"]["limit"]) == (429, scope, limit)
    assert said["quota_remaining"] == left


async def test_a_pool_is_shared_and_each_member_keeps_a_cap(shared: Service) -> None:
    await organization_on_plan(
        shared.sql, "shared-clinic", allows("api_calls", "6"), pool("api_calls", "10")
    )
    for user, quantity, status, remaining in [
        ("one", 6, 201, 0),  # the cap is tighter than the pool's 4
        ("two", 3, 201, 1),  # the pool is tighter than the cap's 3
        ("two", 2, 429, 1),
        ("one", 1, 429, 0),
        ("two", 1, 201, 0),
    ]:
        got, said, _ = await shared.post("/usage", usage(user, quantity, "shared-clinic"))
        assert (got, said["quota_remaining"]) == (status, remaining), (user, quantity)
    _, quota, _ = await shared.get("/quota/two?organization_id=shared-clinic")
    found = {(one["scope"], one["used"]) for one in quota["quotas"]}
    assert {("user", 4), ("organization", 10)} <= found


async def test_a_user_cap_comes_from_the_own_subscription_and_the_pool_pays(
    shared: Service,
) -> None:
    await on_plan(shared.sql, "capped", allows("api_calls", "2"), organization="payer")
    payer = await organization_on_plan(
        shared.sql, "payer", allows("api_calls", "100"), pool("api_calls", "50")
    )
    status, said, _ = await shared.post("/usage", usage("capped", 2))
    assert (status, said["quota_remaining"]) == (201, 0)
    status, said, _ = await shared.post("/usage", usage("capped"))
    assert (status, said["limit"]["scope"], said["limit"]["limit"]) == (429, "user", 2)
    await shared.drained()
    _, listed, _ = await shared.get("/usage?user_id=capped")
    assert [one["subscription_id"] for one in listed["data"]] == [str(payer)]


async def test_a_rate_window_limits_and_says_when_to_come_back(shared: Service) -> None:
    await on_plan(shared.sql, "rated", allows("api_calls", "100", rate=(5, 3600)))
    status, said, headers = await shared.post("/usage", usage("rated", 5))
    assert (status, said["quota_remaining"]) == (201, 95)
    assert headers["RateLimit-Policy"].startswith('"monthly";q=100;')
    status, said, headers = await shared.post("/usage", usage("rated"))
    assert (status, said["type"], said["title"]) == (429, LIMITED, "Rate limited")
    assert said["limit"] == {
        "scope": "user",
        "usage_type": "api_calls",
        "window": "3600s",
        "limit": 5,
    }
    assert (said["quota_remaining"], said["quota_exceeded"]) == (0, True)
    assert 1 <= int(headers["Retry-After"]) <= 720
    assert headers["RateLimit-Policy"] == '"per-3600s";q=5;w=3600'
    assert (await calls(shared, "rated"))["used"] == 5


async def test_a_period_limit_outranks_a_rate_window(shared: Service) -> None:
    await on_plan(shared.sql, "outranks", allows("api_calls", "3", rate=(1, 3600)))
    _, said, _ = await shared.post("/usage", usage("outranks", 4))
    assert (said["type"], said["limit"]["window"]) == (EXCEEDED, "month")


async def test_a_pool_may_have_a_rate_window(shared: Service) -> None:
    await organization_on_plan(shared.sql, "rated-pool", pool("api_calls", None, rate=(3, 3600)))
    statuses = [(await shared.post("/usage", usage(f"r{n}", 1, "rated-pool")))[0] for n in range(4)]
    assert statuses == [201, 201, 201, 429]
