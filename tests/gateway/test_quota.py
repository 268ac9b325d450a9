"""GET /quota/{user_id}: every entitlement, and what is used of it."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from ledger.domain.ids import dev_uuid
from ledger.domain.period import period_at
from tests.conftest import Service
from tests.ledger.plans import (
    CALENDAR_MONTH,
    add_plan,
    allows,
    on_plan,
    organization_on_plan,
    pool,
    subscribe,
)

FIELDS = [
    "usage_type",
    "scope",
    "limit",
    "rollover",
    "used",
    "held",
    "remaining",
    "overage",
    "enforcement",
    "exceeded",
    "resets_at",
]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def test_before_first_use_the_whole_default_plan_is_shown(shared: Service) -> None:
    status, said, _ = await shared.get("/quota/newcomer")
    assert status == 200
    assert list(said) == ["user_id", "organization_id", "plan_tier", "period", "quotas"]
    assert (said["user_id"], said["organization_id"], said["plan_tier"]) == (
        str(dev_uuid("newcomer")),
        None,
        "basic",
    )
    month = period_at(datetime.now(UTC), CALENDAR_MONTH, "month", "UTC")
    assert (instant(said["period"]["start"]), instant(said["period"]["end"])) == (
        month.start,
        month.end,
    )
    assert all(list(one) == FIELDS for one in said["quotas"])
    assert {one["usage_type"]: one["limit"] for one in said["quotas"]} == {
        "conversation_minutes": 1500,
        "api_calls": 10_000,
        "ai_tokens": 1_000_000,
        "feature_uses": 1000,
    }
    for one in said["quotas"]:
        assert (one["used"], one["held"], one["overage"], one["exceeded"]) == (0, 0, 0, False)
        assert (one["remaining"], one["scope"], one["enforcement"]) == (
            one["limit"],
            "user",
            "hard",
        )
        assert instant(one["resets_at"]) == month.end


async def test_reading_a_quota_records_nothing(shared: Service) -> None:
    await shared.drained()
    await shared.get("/quota/reader")
    assert await shared.drained() == 0


async def test_used_and_remaining_are_exact(shared: Service) -> None:
    for quantity in (0.1, 0.2, 15.55):
        request = {"user_id": "exact", "usage_type": "conversation_minutes", "quantity": quantity}
        await shared.post("/usage", request)
    minutes = await entry(shared, "exact", "conversation_minutes")
    assert (minutes["used"], minutes["remaining"]) == (15.85, 1484.15)


async def entry(
    shared: Service, user: str, usage_type: str, scope: str = "user", query: str = ""
) -> dict[str, Any]:
    _, said, _ = await shared.get(f"/quota/{user}{query}")
    [found] = [
        one for one in said["quotas"] if (one["usage_type"], one["scope"]) == (usage_type, scope)
    ]
    return dict(found)


async def test_a_pool_has_entries_of_its_own_and_a_query_selects_the_account(
    shared: Service,
) -> None:
    await organization_on_plan(
        shared.sql, "pooled", allows("api_calls", None), pool("api_calls", "100", "soft")
    )
    request = {
        "user_id": "member",
        "organization_id": "pooled",
        "usage_type": "api_calls",
        "quantity": 120,
    }
    await shared.post("/usage", request)
    query = "?organization_id=pooled"
    user = await entry(shared, "member", "api_calls", query=query)
    assert (user["limit"], user["remaining"], user["used"]) == (None, None, 120)
    shared_one = await entry(shared, "member", "api_calls", "organization", query)
    assert (shared_one["limit"], shared_one["used"], shared_one["overage"]) == (100, 120, 20)
    assert (shared_one["exceeded"], shared_one["enforcement"]) == (True, "soft")
    _, personal, _ = await shared.get("/quota/member")
    assert personal["organization_id"] is None
    assert {one["used"] for one in personal["quotas"]} == {0}


async def test_the_subscriptions_organization_is_selected_by_default(shared: Service) -> None:
    await on_plan(shared.sql, "staff", allows("api_calls", "7"), organization="hospital")
    _, said, _ = await shared.get("/quota/staff")
    assert said["organization_id"] == str(dev_uuid("hospital"))


async def test_a_contradicted_organization_is_a_conflict(shared: Service) -> None:
    await on_plan(shared.sql, "settled", allows("api_calls", "7"), organization="hospital")
    status, said, _ = await shared.get("/quota/settled?organization_id=other")
    assert (status, said["type"]) == (409, "urn:billing:problem:conflict")


async def test_only_what_the_plan_entitles_to_is_listed(shared: Service) -> None:
    await on_plan(shared.sql, "narrow", allows("api_calls", "7"))
    _, said, _ = await shared.get("/quota/narrow")
    assert [one["usage_type"] for one in said["quotas"]] == ["api_calls"]
    assert said["plan_tier"] == "of_narrow"


@pytest.mark.parametrize(
    ("interval", "timezone", "anchor"),
    [
        ("month", "UTC", date(2024, 1, 31)),
        ("year", "UTC", date(2024, 2, 29)),
        ("month", "America/New_York", date(2024, 1, 15)),
    ],
)
async def test_the_period_is_the_subscriptions(
    shared: Service, interval: Any, timezone: str, anchor: date
) -> None:
    tier = f"{interval}_{timezone[:3].lower()}"
    await add_plan(shared.sql, tier, allows("api_calls", "1"), interval=interval)
    await subscribe(shared.sql, tier, user=tier, timezone=timezone, anchor=anchor)
    period = period_at(datetime.now(UTC), anchor, interval, timezone)
    _, said, _ = await shared.get(f"/quota/{tier}")
    assert (instant(said["period"]["start"]), instant(said["period"]["end"])) == (
        period.start,
        period.end,
    )
    request = {"user_id": tier, "usage_type": "api_calls", "quantity": 2}
    _, refused, _ = await shared.post("/usage", request)
    assert refused["limit"]["window"] == interval


@pytest.mark.parametrize("query", ["?organisation_id=x", "?organization_id=a&organization_id=b"])
async def test_a_wrong_query_is_refused(shared: Service, query: str) -> None:
    status, said, _ = await shared.get(f"/quota/ada{query}")
    assert (status, said["type"]) == (400, "urn:billing:problem:invalid-request")
