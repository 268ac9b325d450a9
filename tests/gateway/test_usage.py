"""POST /usage: what is answered to a good record, to a wrong quantity and to wrong metadata."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import BASE, Service
from tests.ledger.plans import allows, on_plan

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


def usage(quantity: Any = 1, usage_type: str = "api_calls", **more: Any) -> dict[str, Any]:
    return {"user_id": "ada", "usage_type": usage_type, "quantity": quantity, **more}


async def send(shared: Service, quantity: str, usage_type: str, user: str) -> tuple[int, str]:
    """Sends a quantity exactly as written; status and body as text."""
    body = f'{{"user_id": "{user}", "usage_type": "{usage_type}", "quantity": {quantity}}}'
    async with shared.http.post(
        f"{shared.url}{BASE}/usage", data=body, headers={"Content-Type": "application/json"}
    ) as response:
        return response.status, await response.text()


async def test_the_answer_has_exactly_the_fields_of_the_spec(shared: Service) -> None:
    status, said, headers = await shared.post("/usage", usage())
    assert status == 201
    assert headers["Content-Type"].startswith("application/json")
    assert list(said) == ["usage_id", "recorded_at", "quota_remaining", "quota_exceeded"]
    assert str(UUID(said["usage_id"])) == said["usage_id"]
    assert _INSTANT.fullmatch(said["recorded_at"])
    assert said["quota_exceeded"] is False
    assert "Idempotent-Replayed" not in headers


async def test_the_request_of_the_spec_works_as_printed(shared: Service) -> None:
    request = {
        "user_id": "123e4567-e89b-12d3-a456-426614174000",
        "organization_id": "456e7890-e89b-12d3-a456-426614174000",
        "usage_type": "conversation_minutes",
        "quantity": 15.5,
        "metadata": {
            "conversation_id": "789e0123-e89b-12d3-a456-426614174000",
            "ai_model_used": "qwen2.5-7b",
        },
    }
    status, said, _ = await shared.post("/usage", request)
    assert (status, said["quota_remaining"]) == (201, 1484.5)


async def test_the_curl_examples_of_the_spec_work_as_printed(shared: Service) -> None:
    body = '{"user_id": "test-user", "usage_type": "api_calls", "quantity": 10}'
    async with shared.http.post(
        f"{shared.url}{BASE}/usage", data=body, headers={"Content-Type": "application/json"}
    ) as response:
        assert response.status == 201
    assert (await shared.get("/quota/test-user"))[0] == 200


async def test_json_numbers_print_exactly(shared: Service) -> None:
    for quantity, remaining in [("59.50", "1440.5"), ("0.01", "1440.49"), ("0.49", "1440")]:
        status, text = await send(shared, quantity, "conversation_minutes", "exact")
        assert status == 201
        assert f'"quota_remaining":{remaining},' in text


@pytest.mark.parametrize(
    ("quantity", "usage_type", "left"),
    [
        ("10", "api_calls", 9990),
        ("10.0", "api_calls", 9990),
        ("10.000", "api_calls", 9990),
        ("1e1", "api_calls", 9990),
        ("1E+1", "api_calls", 9990),
        ("100e-1", "api_calls", 9990),
        ("0.1e2", "api_calls", 9990),
        ("15.55", "conversation_minutes", 1484.45),
        ("15.550", "conversation_minutes", 1484.45),
        ("1555e-2", "conversation_minutes", 1484.45),
        ("0.01", "conversation_minutes", 1499.99),
        ("1500", "conversation_minutes", 0),
    ],
)
async def test_a_quantity_counts_exactly_however_it_is_written(
    shared: Service, quantity: str, usage_type: str, left: float
) -> None:
    user = f"writes-{quantity}-{usage_type}"
    status, text = await send(shared, quantity, usage_type, user)
    assert (status, f'"quota_remaining":{left},' in text) == (201, True), text


@pytest.mark.parametrize(
    ("quantity", "usage_type"),
    [
        ("10.5", "api_calls"),
        ("1e-1", "api_calls"),
        ("15.555", "conversation_minutes"),
        ("1e-3", "conversation_minutes"),
        ("9007199254740992", "api_calls"),
        ("90071992547409.92", "conversation_minutes"),
    ],
)
async def test_a_quantity_finer_or_larger_than_its_type_is_refused(
    shared: Service, quantity: str, usage_type: str
) -> None:
    status, text = await send(shared, quantity, usage_type, "refused")
    assert (status, "invalid-usage" in text, quantity in text) == (400, True, False)


async def test_a_sum_beyond_exact_integers_is_refused(shared: Service) -> None:
    await on_plan(shared.sql, "sums", allows("api_calls", None))
    assert (await send(shared, "9007199254740991", "api_calls", "sums"))[0] == 201
    status, text = await send(shared, "1", "api_calls", "sums")
    assert (status, "invalid-usage" in text) == (400, True)


async def test_an_unknown_usage_type_is_refused_and_not_repeated(shared: Service) -> None:
    status, said, _ = await shared.post("/usage", usage(usage_type="secret_type"))
    assert (status, said["type"]) == (400, "urn:billing:problem:invalid-usage")
    assert "secret_type" not in str(said)


async def test_a_type_that_the_plan_does_not_name_has_limit_zero(shared: Service) -> None:
    await on_plan(shared.sql, "narrow", allows("api_calls", "5"))
    status, said, _ = await shared.post("/usage", {**usage(1, "ai_tokens"), "user_id": "narrow"})
    assert (status, said["quota_remaining"], said["quota_exceeded"]) == (429, 0, True)
    assert said["limit"] == {
        "scope": "user",
        "usage_type": "ai_tokens",
        "window": "month",
        "limit": 0,
    }


@pytest.mark.parametrize(
    "metadata",
    [
        {"conversation_id": "789e0123-e89b-12d3-a456-426614174000"},
        {"request_id": "req_1", "feature": "triage", "cost_center": "CC-12", "department": "er"},
        {"ai_model_used": "qwen2.5-7b"},
        {},
        None,
    ],
)
async def test_allowed_metadata_is_taken(shared: Service, metadata: object) -> None:
    assert (await shared.post("/usage", usage(metadata=metadata)))[0] == 201


@pytest.mark.parametrize(
    "metadata",
    [
        {"patient_name": "Ada-Secret"},
        {"note": "Ada-Secret"},
        {"feature": "Ada Secret has the flu"},
        {"conversation_id": "Ada Secret"},
        {"department": ""},
        {"department": "Ada-Secret\n"},
        {"department": "x" * 65},
        {"ai_model_used": "Ada-Secrét"},
        {"feature": "-Ada-Secret"},
        {"Feature": "Ada-Secret"},
    ],
)
async def test_other_metadata_is_refused_neither_repeated_nor_logged(
    shared: Service, metadata: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    status, said, _ = await shared.post("/usage", usage(metadata=metadata))
    assert (status, said["type"]) == (400, "urn:billing:problem:phi-rejected")
    logged = capsys.readouterr()
    for text in (str(said), logged.out, logged.err):
        assert not re.search("Secr|patient|flu|xxx", text)


async def test_occurred_at_may_lie_35_days_back_and_5_minutes_ahead(shared: Service) -> None:
    now = datetime.now(UTC)
    for ago, expected in [
        (timedelta(days=34, hours=23), 201),
        (timedelta(days=35, hours=1), 400),
        (timedelta(minutes=-4), 201),
        (timedelta(minutes=-6), 400),
    ]:
        status, said, _ = await shared.post("/usage", usage(occurred_at=(now - ago).isoformat()))
        assert status == expected, said


async def test_occurred_at_needs_a_time_zone(shared: Service) -> None:
    status, said, _ = await shared.post("/usage", usage(occurred_at="2026-01-01T00:00:00"))
    assert (status, said["type"]) == (400, "urn:billing:problem:invalid-usage")


async def test_a_paused_subscription_is_refused_with_its_reason(shared: Service) -> None:
    await on_plan(shared.sql, "paused", allows("api_calls", "5"), status="paused")
    status, said, _ = await shared.post("/usage", {**usage(), "user_id": "paused"})
    assert (status, said["reason"]) == (403, "paused")


@pytest.mark.parametrize("ended", ["canceled", "expired"])
async def test_an_ended_subscription_falls_back_to_the_default_tier(
    shared: Service, ended: str
) -> None:
    await on_plan(shared.sql, ended, allows("api_calls", "5"), status=ended)
    _, said, _ = await shared.post("/usage", {**usage(), "user_id": ended})
    assert said["quota_remaining"] == 9999


async def test_readable_names_map_to_stable_uuids_in_dev(shared: Service) -> None:
    _, first, _ = await shared.get("/quota/test-user")
    _, second, _ = await shared.get("/quota/test-user")
    _, same, _ = await shared.get(f"/quota/{first['user_id']}")
    assert first["user_id"] == second["user_id"] == same["user_id"]
    assert UUID(first["user_id"]).version == 5
