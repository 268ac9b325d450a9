"""One key, one effect, one answer: whoever retries, however often."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from ledger.domain.ids import dev_uuid
from tests.conftest import BASE, Service
from tests.ledger.plans import allows, on_plan

REUSE = "urn:billing:problem:idempotency-key-reuse"


def usage(user: str, quantity: Any = 1, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "usage_type": "api_calls", "quantity": quantity, **more}


async def used(shared: Service, user: str) -> int:
    _, quota, _ = await shared.get(f"/quota/{user}")
    [calls] = [one for one in quota["quotas"] if one["usage_type"] == "api_calls"]
    return int(calls["used"])


async def raw(shared: Service, body: str, headers: dict[str, str]) -> tuple[int, bytes, str | None]:
    async with shared.http.post(
        f"{shared.url}{BASE}/usage",
        data=body,
        headers={"Content-Type": "application/json", **headers},
    ) as response:
        return response.status, await response.read(), response.headers.get("Idempotent-Replayed")


async def test_a_retry_gets_the_same_bytes_and_counts_once(shared: Service) -> None:
    body = '{"user_id": "bytes", "usage_type": "conversation_minutes", "quantity": 59.5}'
    key = {"Idempotency-Key": "k"}
    first = await raw(shared, body, key)
    await raw(shared, body, {})  # what happens meanwhile does not change the old answer
    for _ in range(3):
        assert await raw(shared, body, key) == (201, first[1], "true")
    assert first[2] is None
    assert b'"quota_remaining":1440.5,' in first[1]


async def test_a_key_in_the_header_in_the_body_and_in_quotes_is_the_same_key(
    shared: Service,
) -> None:
    answers = [
        await shared.post("/usage", usage("forms"), headers={"Idempotency-Key": "one"}),
        await shared.post("/usage", usage("forms"), headers={"Idempotency-Key": '"one"'}),
        await shared.post("/usage", usage("forms", idempotency_key="one")),
        await shared.post(
            "/usage", usage("forms", idempotency_key="one"), headers={"Idempotency-Key": "one"}
        ),
    ]
    assert [status for status, _, _ in answers] == [201] * 4
    assert len({said["usage_id"] for _, said, _ in answers}) == 1
    assert [headers.get("Idempotent-Replayed") for _, _, headers in answers] == [
        None,
        "true",
        "true",
        "true",
    ]
    assert await used(shared, "forms") == 1


async def test_header_and_body_that_differ_are_refused(shared: Service) -> None:
    status, said, _ = await shared.post(
        "/usage", usage("differ", idempotency_key="a"), headers={"Idempotency-Key": "b"}
    )
    assert (status, said["type"]) == (400, "urn:billing:problem:invalid-usage")
    assert await used(shared, "differ") == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"quantity": 2},
        {"usage_type": "ai_tokens"},
        {"metadata": {"feature": "triage"}},
        {"occurred_at": None},
    ],
    ids=lambda changed: str(next(iter(changed))),
)
async def test_the_same_key_with_another_body_is_refused_without_effect(
    shared: Service, changed: dict[str, Any]
) -> None:
    user = f"reuse-{next(iter(changed))}"
    _, first, _ = await shared.post("/usage", usage(user, idempotency_key="k"))
    if "occurred_at" in changed:
        changed = {"occurred_at": first["recorded_at"]}
    status, said, _ = await shared.post("/usage", usage(user, idempotency_key="k") | changed)
    assert (status, said["type"]) == (422, REUSE)
    assert await used(shared, user) == 1


async def test_the_same_key_for_another_organization_counts_once(shared: Service) -> None:
    """Receipts live with the account, so a member of another partition's may get 201 here; the
    ledger, which knows every key, must not count it."""
    await shared.post("/usage", usage("moves", idempotency_key="k"))
    for name in ("clinic-a", "clinic-b", "clinic-c", "clinic-d"):
        request = usage("moves", idempotency_key="k", organization_id=name)
        assert (await shared.post("/usage", request))[0] in (201, 422)
    await shared.drained()
    counted = "SELECT COUNT(*) FROM usage_records WHERE user_id = $1"
    assert await shared.sql.fetchval(counted, dev_uuid("moves")) == 1


async def test_the_fingerprint_is_of_what_the_body_means_not_of_its_bytes(shared: Service) -> None:
    key = {"Idempotency-Key": "k"}
    first = await raw(
        shared,
        '{"user_id":"means","usage_type":"api_calls","quantity":10,"metadata":'
        '{"feature":"a","department":"b"}}',
        key,
    )
    same = await raw(
        shared,
        '{ "metadata": {"department": "b", "feature": "a"}, "quantity": 1.0e1,'
        ' "usage_type": "api_calls", "user_id": "means", "occurred_at": null }',
        key,
    )
    assert same == (201, first[1], "true")


async def test_a_refused_attempt_does_not_burn_its_key(shared: Service) -> None:
    await on_plan(shared.sql, "burns", allows("api_calls", "5"))
    key = {"Idempotency-Key": "k"}
    for quantity, expected in [(1.5, 400), (10, 429), (3, 201)]:
        status, _, headers = await shared.post("/usage", usage("burns", quantity), headers=key)
        assert status == expected
        assert "Idempotent-Replayed" not in headers
    status, said, _ = await shared.post("/usage", usage("burns", 10), headers=key)
    assert (status, said["type"]) == (422, REUSE)


async def test_a_replay_wins_over_an_exhausted_quota(shared: Service) -> None:
    await on_plan(shared.sql, "spent", allows("api_calls", "5"))
    key = {"Idempotency-Key": "k"}
    _, first, _ = await shared.post("/usage", usage("spent", 5), headers=key)
    assert (await shared.post("/usage", usage("spent", 1)))[0] == 429
    status, again, headers = await shared.post("/usage", usage("spent", 5), headers=key)
    assert (status, again, headers["Idempotent-Replayed"]) == (201, first, "true")


async def test_a_replay_wins_over_an_exhausted_quota_when_only_the_ledger_remembers(
    shared: Service,
) -> None:
    await on_plan(shared.sql, "forgot", allows("api_calls", "5"))
    key = {"Idempotency-Key": "k"}
    _, first, _ = await shared.post("/usage", usage("forgot", 5), headers=key)
    await shared.drained()
    for receipts in await shared.redis.run("KEYS", "receipt:*"):
        await shared.redis.run("DEL", receipts)
    status, again, headers = await shared.post("/usage", usage("forgot", 5), headers=key)
    assert (status, again, headers["Idempotent-Replayed"]) == (201, first, "true")
    status, said, _ = await shared.post("/usage", usage("forgot", 4), headers=key)
    assert (status, said["type"]) == (422, REUSE)


async def test_a_key_belongs_to_the_user_across_callers(shared: Service) -> None:
    key = {"Idempotency-Key": "k"}
    tokens = [shared.token(user="caller-a"), shared.token(user="caller-b"), {}]
    answers = [
        await shared.post("/usage", usage("across"), headers={**key, **token}) for token in tokens
    ]
    assert len({said["usage_id"] for _, said, _ in answers}) == 1
    assert await used(shared, "across") == 1
    _, other, headers = await shared.post("/usage", usage("another"), headers=key)
    assert other["usage_id"] != answers[0][1]["usage_id"]
    assert "Idempotent-Replayed" not in headers


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("k", 201),
        ("x" * 255, 201),
        ("ü" * 255, 201),
        ("with space", 201),
        ("x" * 256, 400),
        ("", 400),
        ("tab\t", 400),
        ("line\n", 400),
        ("nul\x00", 400),
        ("\x7f", 400),
        ("\u200b", 400),
    ],
)
async def test_a_key_in_the_body_has_1_to_255_printable_characters(
    shared: Service, key: str, expected: int
) -> None:
    status, said, _ = await shared.post("/usage", usage("length", idempotency_key=key))
    assert status == expected
    if expected == 400:
        assert said["type"] == "urn:billing:problem:invalid-usage"
        assert not key.strip() or key not in said["detail"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [("x" * 255, 201), (f'"{"y" * 255}"', 201), ("x" * 256, 400), ('""', 400), ("", 400)],
)
async def test_a_key_in_the_header_has_1_to_255_printable_characters(
    shared: Service, key: str, expected: int
) -> None:
    headers = {"Idempotency-Key": key}
    assert (await shared.post("/usage", usage("header"), headers=headers))[0] == expected


async def test_every_recorded_key_can_be_drained(shared: Service) -> None:
    await shared.drained()
    counted = await shared.sql.fetchval("SELECT COUNT(*) FROM usage_records")
    assert counted == await shared.sql.fetchval("SELECT COUNT(*) FROM usage_keys") > 10


async def test_without_a_key_every_request_counts(shared: Service) -> None:
    answers = [await shared.post("/usage", usage("keyless")) for _ in range(3)]
    assert len({said["usage_id"] for _, said, _ in answers}) == 3
    assert await used(shared, "keyless") == 3


async def test_a_key_whose_receipt_is_damaged_is_unknown_until_the_ledger_has_it(
    service: Service,
) -> None:
    request = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}
    key = {"Idempotency-Key": "once"}
    _, first, _ = await service.post("/usage", request, headers=key)
    [receipts] = await service.redis.run("KEYS", "receipt:*")
    await service.redis.run("HSET", receipts, UUID(first["usage_id"]).bytes, "damaged")
    status, said, _ = await service.post("/usage", request, headers=key)
    assert (status, said["outcome"]) == (503, "unknown")
    await service.drained()
    status, again, headers = await service.post("/usage", request, headers=key)
    assert (status, again, headers["Idempotent-Replayed"]) == (201, first, "true")
