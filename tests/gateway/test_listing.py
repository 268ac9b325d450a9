"""GET /usage: filters, pages, edges; who may see what is in the security group."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from ledger.domain.ids import dev_uuid
from tests.conftest import Service
from tests.ledger.plans import allows, organization_on_plan, pool

FIELDS = [
    "usage_id",
    "user_id",
    "organization_id",
    "usage_type",
    "quantity",
    "recorded_at",
    "occurred_at",
    "billing_period",
    "subscription_id",
    "plan_tier",
    "plan_version",
    "used_after",
    "pool_used_after",
    "quota_remaining",
    "quota_exceeded",
    "metadata",
    "idempotency_key",
    "recorded_by",
    "reversal_of",
]


async def record(shared: Service, user: str, quantity: Any = 1, **more: Any) -> dict[str, Any]:
    request = {"user_id": user, "usage_type": "api_calls", "quantity": quantity, **more}
    status, said, _ = await shared.post("/usage", request)
    assert status == 201
    return dict(said)


async def listed(shared: Service, query: str) -> list[dict[str, Any]]:
    status, said, _ = await shared.get(f"/usage?{query}")
    assert (status, list(said)) == (200, ["data", "has_more"]), said
    return list(said["data"])


async def test_a_record_shows_what_was_said_and_answered(shared: Service) -> None:
    subscription = await organization_on_plan(
        shared.sql, "shown", allows("conversation_minutes", "100"), pool("api_calls", "5")
    )
    said = await record(
        shared,
        "shown-user",
        15.5,
        usage_type="conversation_minutes",
        organization_id="shown",
        metadata={"feature": "triage"},
        idempotency_key="k",
    )
    await shared.drained()
    [one] = await listed(shared, "user_id=shown-user")
    assert list(one) == FIELDS
    start = datetime.fromisoformat(said["recorded_at"]).replace(day=1).date().isoformat()
    assert one == {
        **one,
        "usage_id": said["usage_id"],
        "user_id": str(dev_uuid("shown-user")),
        "organization_id": str(dev_uuid("shown")),
        "usage_type": "conversation_minutes",
        "quantity": 15.5,
        "recorded_at": said["recorded_at"],
        "occurred_at": said["recorded_at"],
        "billing_period": start,
        "subscription_id": str(subscription),
        "plan_tier": "of_shown",
        "used_after": 15.5,
        "pool_used_after": 15.5,
        "quota_remaining": 84.5,
        "quota_exceeded": False,
        "metadata": {"feature": "triage"},
        "idempotency_key": "k",
        "recorded_by": "service-dev",
        "reversal_of": None,
    }


async def test_numbers_print_without_the_zeros_of_the_column(shared: Service) -> None:
    await record(shared, "printed", 1440.50, usage_type="conversation_minutes")
    await record(shared, "printed", 100, usage_type="ai_tokens")
    await shared.drained()
    async with shared.http.get(f"{shared.url}/api/v1/billing/usage?user_id=printed") as response:
        text = await response.text()
    assert '"quantity":1440.5,' in text and '"quantity":100,' in text


async def test_what_is_not_drained_is_not_shown_yet(shared: Service) -> None:
    await record(shared, "waiting")
    assert await listed(shared, "user_id=waiting") == []
    await shared.drained()
    assert len(await listed(shared, "user_id=waiting")) == 1


async def test_filters_narrow_the_list(shared: Service) -> None:
    await record(shared, "one", organization_id="clinic")
    await record(shared, "two", organization_id="clinic")
    await record(shared, "one", usage_type="ai_tokens", organization_id="clinic")
    await record(shared, "one")
    await shared.drained()
    for query, count in [
        ("user_id=one", 3),
        ("organization_id=clinic", 3),
        ("user_id=one&organization_id=clinic", 2),
        ("user_id=one&usage_type=ai_tokens", 1),
        ("user_id=one&usage_type=feature_uses", 0),
        ("user_id=one&usage_type=unheard_of", 0),
        ("user_id=stranger", 0),
    ]:
        assert len(await listed(shared, query)) == count, query


async def test_pages_are_newest_first_without_gap_or_repeat(shared: Service) -> None:
    records = [
        {"user_id": "paged", "usage_type": "api_calls", "quantity": n + 1} for n in range(25)
    ]
    await shared.post("/usage/batch", {"records": records})  # many of one millisecond
    for _ in range(3):
        await record(shared, "paged")
    await shared.drained()
    whole = await listed(shared, "user_id=paged")
    order = [(one["recorded_at"], one["usage_id"]) for one in whole]
    assert (len(order), order) == (28, sorted(order, reverse=True))
    pages, after = [], ""
    while True:
        _, said, _ = await shared.get(f"/usage?user_id=paged&limit=7{after}")
        pages += said["data"]
        if not said["has_more"]:
            break
        after = f"&starting_after={said['data'][-1]['usage_id']}"
    assert pages == whole


async def test_has_more_is_false_exactly_at_the_end(shared: Service) -> None:
    for _ in range(3):
        await record(shared, "ends")
    await shared.drained()
    for limit, more in [(2, True), (3, False), (4, False)]:
        _, said, _ = await shared.get(f"/usage?user_id=ends&limit={limit}")
        assert (len(said["data"]), said["has_more"]) == (min(limit, 3), more)


async def test_fifty_are_listed_unless_asked_otherwise(shared: Service) -> None:
    records = [{"user_id": "many", "usage_type": "api_calls", "quantity": 1}] * 60
    await shared.post("/usage/batch", {"records": records})
    await shared.drained()
    assert len(await listed(shared, "user_id=many")) == 50
    assert len(await listed(shared, "user_id=many&limit=1000")) == 60


async def test_from_is_included_and_to_is_not(shared: Service) -> None:
    said = await record(shared, "timed")
    await shared.drained()
    at = datetime.fromisoformat(said["recorded_at"])
    later, earlier = at + timedelta(milliseconds=1), at - timedelta(milliseconds=1)
    for query, count in [
        (f"from={_said(at)}", 1),
        (f"from={_said(later)}", 0),
        (f"to={_said(at)}", 0),
        (f"to={_said(later)}", 1),
        (f"from={_said(earlier)}&to={_said(later)}", 1),
        (f"from={quote(at.isoformat())}", 1),
    ]:
        assert len(await listed(shared, f"user_id=timed&{query}")) == count, query


def _said(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "user_id=ada&starting_after=never-recorded",
        "user_id=ada&starting_after=00000000-0000-4000-8000-000000000000",
        "user_id=ada&limit=0",
        "user_id=ada&limit=1001",
        "user_id=ada&limit=x",
        "user_id=ada&from=yesterday",
        "user_id=ada&from=2026-01-01T00:00:00",
        "user_id=ada&usage_type=",
        "user_id=ada&colour=red",
        "user_id=ada&user_id=bob",
    ],
)
async def test_a_wrong_query_is_refused(shared: Service, query: str) -> None:
    status, said, _ = await shared.get(f"/usage?{query}")
    assert (status, said["type"]) == (400, "urn:billing:problem:invalid-request")


async def test_an_unknown_field_is_answered_with_the_known_ones(shared: Service) -> None:
    _, said, _ = await shared.get("/usage?usr_id=ada")
    assert said["detail"] == (
        "the query has an unknown field; known are "
        "user_id, organization_id, usage_type, from, to, limit, starting_after"
    )
    body = {"user_id": "ada", "usage_typ": "api_calls", "quantity": 1}
    _, said, _ = await shared.post("/usage", body)
    assert said["detail"] == (
        "the body has an unknown field; known are user_id, usage_type, quantity, "
        "organization_id, metadata, idempotency_key, occurred_at"
    )


@pytest.mark.parametrize(
    "query",
    [
        "user_id=ada&usage_type=a%00b",
        "user_id=%00",
        "user_id=ada&usage_type=%ED%A0%80",
        "user_id=ada&from=0001-01-01T00:00:00%2B14:00",
        "user_id=ada&to=9999-12-31T23:59:59-14:00",
        "user_id=ada&limit=99999999999999999999",
    ],
)
async def test_an_extreme_query_is_never_an_internal_error(shared: Service, query: str) -> None:
    assert (await shared.get(f"/usage?{query}"))[0] in (200, 400)
