"""POST /usage/batch: each record decided on its own, answered in order."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.domain.ids import dev_uuid
from tests.conftest import Service
from tests.ledger.plans import allows, on_plan


def usage(user: str, quantity: Any = 1, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "usage_type": "api_calls", "quantity": quantity, **more}


async def batch(
    shared: Service, *records: Any, key: str | None = None, **options: Any
) -> dict[str, Any]:
    headers = options.pop("headers", {}) | ({"Idempotency-Key": key} if key else {})
    status, said, _ = await shared.post("/usage/batch", {"records": records}, headers=headers)
    assert status == 200, said
    assert said["accepted"] + said["rejected"] == len(said["results"]) == len(records)
    return dict(said)


def statuses(said: dict[str, Any]) -> list[int]:
    return [one["status"] for one in said["results"]]


async def test_a_result_is_the_answer_that_the_single_route_gives(shared: Service) -> None:
    said = await batch(shared, usage("single", 1.0))
    [result] = said["results"]
    assert list(result) == [
        "status",
        "usage_id",
        "recorded_at",
        "quota_remaining",
        "quota_exceeded",
    ]
    assert (result["status"], result["quota_remaining"]) == (201, 9999)
    assert (said["accepted"], said["rejected"]) == (1, 0)


async def test_results_are_in_order_whatever_becomes_of_each(shared: Service) -> None:
    await on_plan(shared.sql, "ordered", allows("api_calls", "5"))
    said = await batch(
        shared,
        usage("ordered", 3),
        usage("ordered", 1.5),
        usage("ordered", 3),
        usage("ordered", 2, idempotency_key="k"),
        usage("ordered", 1, idempotency_key="k"),
        {"user_id": "ordered"},
        usage("ordered", 1, metadata={"note": "x"}),
        5,
        usage("elsewhere"),
    )
    assert statuses(said) == [201, 400, 429, 201, 422, 400, 400, 400, 201]
    assert (said["accepted"], said["rejected"]) == (3, 6)
    kinds = [one.get("type", "").rpartition(":")[2] for one in said["results"]]
    assert kinds == [
        "",
        "invalid-usage",
        "quota-exceeded",
        "",
        "idempotency-key-reuse",
        "invalid-usage",
        "phi-rejected",
        "invalid-usage",
        "",
    ]
    refused = said["results"][2]
    assert (refused["limit"]["scope"], refused["quota_remaining"]) == ("user", 2)


async def test_a_user_at_its_limit_gets_exactly_what_is_left(shared: Service) -> None:
    await on_plan(shared.sql, "edge", allows("api_calls", "300"))
    said = await batch(shared, *(usage("edge") for _ in range(1000)))
    assert statuses(said) == [201] * 300 + [429] * 700
    assert [one["quota_remaining"] for one in said["results"]] == [*range(299, -1, -1), *[0] * 700]


async def test_the_header_key_gives_each_record_a_key_of_its_own(shared: Service) -> None:
    records = [usage("keys"), usage("keys", idempotency_key="own"), usage("keys")]
    first = await batch(shared, *records, key="b")
    again = await batch(shared, *records, key='"b"')
    assert [one["usage_id"] for one in again["results"]] == [
        one["usage_id"] for one in first["results"]
    ]
    assert [one.get("replayed") for one in first["results"]] == [None] * 3
    assert [one.get("replayed") for one in again["results"]] == [True] * 3
    assert (again["accepted"], again["rejected"]) == (3, 0)
    await shared.drained()
    kept = await shared.sql.fetch(
        "SELECT idempotency_key FROM usage_records WHERE user_id = $1", dev_uuid("keys")
    )
    assert sorted(row["idempotency_key"] for row in kept) == ["b#0", "b#2", "own"]


async def test_the_single_route_replays_what_a_batch_recorded(shared: Service) -> None:
    said = await batch(shared, usage("mixed", idempotency_key="k"))
    _, single, headers = await shared.post("/usage", usage("mixed", idempotency_key="k"))
    assert headers["Idempotent-Replayed"] == "true"
    assert single == {name: said["results"][0][name] for name in single}


async def test_a_key_twice_in_one_batch_counts_once(shared: Service) -> None:
    records = [usage("twice", idempotency_key="k") for _ in range(3)]
    said = await batch(shared, *records)
    assert len({one["usage_id"] for one in said["results"]}) == 1
    assert [one.get("replayed") for one in said["results"]] == [None, True, True]
    assert (said["accepted"], said["rejected"]) == (3, 0)
    _, quota, _ = await shared.get("/quota/twice")
    assert {one["used"] for one in quota["quotas"]} == {0, 1}


async def test_records_of_organizations_not_in_the_token_are_forbidden_one_by_one(
    shared: Service,
) -> None:
    said = await batch(
        shared,
        usage("member"),
        usage("member", organization_id="other"),
        usage("member", organization_id="clinic"),
        headers=shared.token(organizations=["clinic"]),
    )
    assert statuses(said) == [201, 403, 201]
    assert said["results"][1]["type"] == "urn:billing:problem:forbidden"


async def test_a_contradicted_subscription_fails_only_its_record(shared: Service) -> None:
    await on_plan(shared.sql, "settled", allows("api_calls", "5"), organization="clinic")
    said = await batch(
        shared, usage("settled", organization_id="other"), usage("settled"), usage("free")
    )
    assert statuses(said) == [409, 201, 201]


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_of_no_or_too_many_records_is_refused_whole(
    shared: Service, count: int
) -> None:
    records = [usage("whole") for _ in range(count)]
    status, said, _ = await shared.post("/usage/batch", {"records": records})
    assert (status, said["type"]) == (400, "urn:billing:problem:invalid-usage")
    _, quota, _ = await shared.get("/quota/whole")
    assert {one["used"] for one in quota["quotas"]} == {0}


async def test_a_thousand_records_of_many_accounts_are_answered(shared: Service) -> None:
    said = await batch(
        shared, *(usage(f"m{n % 50}", organization_id=f"o{n % 7}") for n in range(1000))
    )
    assert statuses(said) == [201] * 1000
    assert len({one["usage_id"] for one in said["results"]}) == 1000


async def test_a_wrong_header_key_refuses_the_whole_batch(shared: Service) -> None:
    status, said, _ = await shared.post(
        "/usage/batch", {"records": [usage("key")]}, headers={"Idempotency-Key": "x" * 256}
    )
    assert (status, said["type"]) == (400, "urn:billing:problem:invalid-usage")


async def test_the_longest_header_key_leaves_records_that_can_be_drained(shared: Service) -> None:
    status, said, _ = await shared.post(
        "/usage/batch", {"records": [usage("longest")] * 2}, headers={"Idempotency-Key": "x" * 255}
    )
    accepted = said.get("accepted", 0)
    assert (status, accepted) in [(200, 2), (200, 0), (400, 0)]
    await shared.drained()
    rows = "SELECT COUNT(*) FROM usage_records WHERE user_id = $1"
    assert await shared.sql.fetchval(rows, dev_uuid("longest")) == accepted
