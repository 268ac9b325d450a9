"""Finance corrects recorded usage: exact, once, never below nothing, and the quota with it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from tests.gateway.desk import USER, Desk


async def test_a_correction_is_a_record_of_its_own_and_gives_quota_back(
    desk: Desk,
) -> None:
    original = await desk.use(10)
    [before] = await desk.sql.fetch("SELECT * FROM usage_records")
    status, said, _ = await desk.correct(original, -4)
    assert status == 201
    assert (said["correction_of"], said["quantity"], said["net_quantity"]) == (original, -4, 6)
    assert (said["quota_remaining"], said["quota_exceeded"]) == (9994, False)
    assert await desk.used() == [6]
    await desk.service.drained()
    finance = desk.service.token("finance")
    _, listed, _ = await desk.service.get("/usage?user_id=ada", headers=finance)
    newest, oldest = listed["data"]
    assert (newest["usage_id"], newest["reversal_of"]) == (said["usage_id"], original)
    assert (newest["quantity"], newest["used_after"]) == (-4, 6)
    assert newest["recorded_at"] == said["recorded_at"]
    for name in ("billing_period", "occurred_at", "plan_tier", "plan_version", "subscription_id"):
        assert newest[name] == oldest[name]
    unchanged = await desk.sql.fetchrow("SELECT * FROM usage_records WHERE usage_id = $1", original)
    assert unchanged == before
    assert await desk.used() == [6]


async def test_more_can_be_added_past_every_limit(desk: Desk) -> None:
    original = await desk.use(9_999)
    status, said, _ = await desk.correct(original, 5_000)
    assert (status, said["net_quantity"]) == (201, 14_999)
    assert (said["quota_remaining"], said["quota_exceeded"]) == (0, True)


async def test_decimals_are_exact(desk: Desk) -> None:
    original = await desk.use(15.5, "conversation_minutes")
    status, said, _ = await desk.correct(original, -15.49)
    assert (status, said["quantity"], said["net_quantity"]) == (201, -15.49, 0.01)
    assert (await desk.correct(original, -0.001))[0] == 400


async def test_the_pool_of_an_organization_is_corrected_with_its_member(
    desk: Desk,
) -> None:
    original = await desk.use(10, organization_id="acme")
    await desk.use(7)
    assert (await desk.correct(original, -3))[0] == 201
    assert await desk.used(organization_id="acme") == [7]
    assert await desk.used() == [7]
    await desk.service.drained()
    rows = await desk.sql.fetch(
        "SELECT quantity::INTEGER AS quantity FROM usage_totals ORDER BY subject"
    )
    assert [row["quantity"] for row in rows] == [7, 7, 7]


@pytest.mark.parametrize("drained", [False, True])
async def test_a_repeat_is_answered_the_same_and_corrects_once(desk: Desk, drained: bool) -> None:
    original = await desk.use(10)
    first = await desk.correct(original, -4, "key")
    if drained:
        await desk.service.drained()
        await desk.service.redis.run("FLUSHALL")  # no receipt
        await desk.service.drained()
    status, said, headers = await desk.correct(original, -4, "key")
    assert (status, said) == first[:2]
    assert headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first[2]
    assert await desk.used() == [6]
    await desk.service.drained()
    assert await desk.rows() == [10, -4]


async def test_a_key_is_for_one_correction_of_a_user(desk: Desk) -> None:
    original, other = await desk.use(10), await desk.use(10)
    assert (await desk.correct(original, -4, "key"))[0] == 201
    assert (await desk.correct(original, -5, "key"))[0] == 422
    assert (await desk.correct(original, -4, "key", reason="another"))[0] == 422
    assert (await desk.correct(other, -4, "key"))[0] == 422
    assert await desk.used() == [16]


async def test_the_key_of_usage_is_not_that_of_its_correction(desk: Desk) -> None:
    original = await desk.use(10, idempotency_key="key")
    assert (await desk.correct(original, -4, "key"))[0] == 201


async def test_a_key_is_needed_and_may_be_in_the_body(desk: Desk) -> None:
    original = await desk.use(10)
    path, token = f"/usage/{original}/corrections", desk.service.token("finance")
    body = {"quantity": -1, "reason": "test"}
    assert (await desk.service.post(path, body, headers=token))[0] == 400
    body["idempotency_key"] = "key"
    assert (await desk.service.post(path, body, headers=token))[0] == 201


async def test_no_more_is_taken_back_than_is_left(desk: Desk) -> None:
    original = await desk.use(10)
    assert (await desk.correct(original, -6))[0] == 201  # not drained, and counts
    status, said, _ = await desk.correct(original, -5)
    assert (status, said["detail"]) == (409, "only 4 of it is left to take back")
    assert (await desk.correct(original, -4))[0] == 201
    assert (await desk.correct(original, 3))[1]["net_quantity"] == 3
    assert (await desk.correct(original, 2**53 - 1))[0] == 409


async def test_of_many_at_once_none_takes_what_another_took(desk: Desk) -> None:
    original = await desk.use(10)
    answers = await asyncio.gather(*(desk.correct(original, -3) for _ in range(8)))
    assert sorted(status for status, _, _ in answers) == [201] * 3 + [409] * 5
    assert await desk.used() == [1]


async def test_one_key_at_once_is_one_correction(desk: Desk) -> None:
    original, other = await desk.use(10), await desk.use(10)
    at_once = [desk.correct(one, -3, "key") for one in (original, original, other, other)]
    statuses = [status for status, _, _ in await asyncio.gather(*at_once)]
    assert sorted(statuses) == [201, 201, 422, 422]
    assert await desk.used() == [17]


async def test_a_correction_is_not_corrected(desk: Desk) -> None:
    original = await desk.use(10)
    _, said, _ = await desk.correct(original, -1)
    assert (await desk.correct(said["usage_id"], 1))[0] == 409
    await desk.service.drained()
    assert (await desk.correct(said["usage_id"], 1))[0] == 409


async def test_what_is_not_drained_waits_and_what_is_not_there_is_not_found(
    desk: Desk,
) -> None:
    for key in ("key", None):
        body = {"user_id": USER, "usage_type": "api_calls", "quantity": 1}
        _, used, _ = await desk.service.post("/usage", body | {"idempotency_key": key})
        status, _, headers = await desk.correct(used["usage_id"], -1)
        assert (status, headers["Retry-After"]) == (409, "1")
        await desk.service.drained()
        assert (await desk.correct(used["usage_id"], -1))[0] == 201
    for unknown in (str(uuid4()), "test-user", "0" * 300):
        assert (await desk.correct(unknown, -1))[0] == 404


@pytest.mark.parametrize(
    ("role", "status"),
    [("finance", 201), ("admin", 201), ("service", 403), ("org_admin", 403), ("user", 403)],
)
async def test_finance_and_admins_correct(desk: Desk, role: Any, status: int) -> None:
    original = await desk.use(10)
    assert (await desk.correct(original, -1, role=role))[0] == status
    nobody = {"Idempotency-Key": "key"}
    path = f"/usage/{original}/corrections"
    assert (await desk.service.post(path, {"quantity": -1, "reason": "x"}, headers=nobody))[
        0
    ] == 401


@pytest.mark.parametrize(
    "body",
    [
        '{"quantity": 0, "reason": "x"}',
        '{"quantity": -0.0, "reason": "x"}',
        '{"quantity": --1, "reason": "x"}',
        '{"quantity": "-1", "reason": "x"}',
        '{"quantity": "--1", "reason": "x"}',
        '{"quantity": -1e999, "reason": "x"}',
        '{"quantity": -9007199254740992, "reason": "x"}',
        '{"quantity": -0.5, "reason": "x"}',
        '{"quantity": null, "reason": "x"}',
        '{"quantity": -1}',
        '{"quantity": -1, "reason": ""}',
        '{"quantity": -1, "reason": "a\\nb"}',
        '{"quantity": -1, "reason": "' + "x" * 201 + '"}',
        '{"quantity": -1, "reason": "x", "user_id": "ada"}',
    ],
)
async def test_bad_input_is_refused_and_nothing_is_kept(desk: Desk, body: str) -> None:
    original = await desk.use(10)
    headers = desk.service.token("finance") | {"Idempotency-Key": "key"}
    headers["Content-Type"] = "application/json"
    path = f"/usage/{original}/corrections"
    status, _, _ = await desk.service.post(path, headers=headers, data=body)
    assert status == 400
    assert await desk.sql.fetchval("SELECT COUNT(*) FROM usage_corrections") == 0


async def test_the_reason_is_in_the_audit_trail_alone(desk: Desk) -> None:
    original = await desk.use(10)
    await desk.correct(original, -4, reason="sent by a load test")
    await desk.service.drained()
    [event] = await desk.sql.fetch(
        "SELECT * FROM audit_events WHERE event_type = 'usage_corrected'"
    )
    details = msgspec.json.decode(event["details"])
    assert event["actor"] == "finance-dev"
    assert details["reason"] == "sent by a load test"
    assert (details["correction_of"], details["quantity"]) == (original, "-4")
    row = await desk.sql.fetchval("SELECT r::TEXT FROM usage_records r WHERE quantity < 0")
    assert "load test" not in row
