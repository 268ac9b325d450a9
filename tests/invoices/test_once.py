"""Changes under an `Idempotency-Key`: a retry after an unknown outcome changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger import once, subscriptions
from tests.conftest import Service
from tests.invoices.conftest import Months

ADA = {"user_id": "ada", "plan_tier": "professional"}


async def post(
    service: Service, path: str, body: Any, key: str | None = "k1", role: Any = "finance"
) -> tuple[int, Any, dict[str, str]]:
    named = {"Idempotency-Key": key} if key is not None else {}
    status, said, headers = await service.post(path, body, headers=service.token(role) | named)
    return status, said, {name.lower(): value for name, value in headers.items()}


async def test_a_subscription_that_is_begun_again_under_its_key_is_answered_the_same(
    service: Service,
) -> None:
    status, said, headers = await post(service, "/subscriptions", ADA)
    assert status == 201
    assert "idempotent-replayed" not in headers
    again = await post(service, "/subscriptions", ADA)
    assert again[:2] == (status, said)
    assert again[2]["idempotent-replayed"] == "true"
    assert again[2]["etag"] == headers["etag"]
    await service.post("/subscription/ada/cancel", {"when": "now"}, headers=service.token("admin"))
    assert (await post(service, "/subscriptions", ADA))[:2] == (status, said)
    assert await service.sql.fetchval("SELECT COUNT(*) FROM subscriptions") == 1
    assert (await post(service, "/subscriptions", ADA, key=None))[0] == 201


async def test_a_key_is_of_one_caller_and_of_one_request(service: Service) -> None:
    assert (await post(service, "/subscriptions", ADA))[0] == 201
    ben = {"user_id": "ben", "plan_tier": "professional"}
    status, said, _ = await post(service, "/subscriptions", ben)
    assert (status, said["type"]) == (422, "urn:billing:problem:idempotency-key-reuse")
    assert (await post(service, "/subscriptions", ben, role="admin"))[0] == 201
    assert (await post(service, "/subscriptions", ADA, key="k2"))[0] == 409
    assert (await post(service, "/subscriptions", ADA, key=""))[0] == 400
    assert (await post(service, "/subscriptions", ADA, key="k" * 256))[0] == 400


async def test_what_was_refused_leaves_no_key(service: Service) -> None:
    wrong = {"user_id": "ada", "plan_tier": "nothing"}
    assert (await post(service, "/subscriptions", wrong))[0] == 400
    assert (await post(service, "/subscriptions", ADA))[0] == 201


async def test_many_retries_at_once_begin_one_subscription(service: Service) -> None:
    answers = await asyncio.gather(*(post(service, "/subscriptions", ADA) for _ in range(12)))
    assert {status for status, _, _ in answers} == {201}
    assert len({said["subscription_id"] for _, said, _ in answers}) == 1
    assert [headers.get("idempotent-replayed") for _, _, headers in answers].count(None) == 1


async def test_a_crash_before_the_commit_leaves_neither_change_nor_key(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crashes(*_: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(subscriptions, "keep", crashes)
    status, said, _ = await post(service, "/subscriptions", ADA)
    assert (status, said["outcome"]) == (503, "unknown")
    monkeypatch.setattr(subscriptions, "keep", once.keep)
    status, _, headers = await post(service, "/subscriptions", ADA)
    assert (status, headers.get("idempotent-replayed")) == (201, None)


async def test_a_retry_after_a_crash_is_answered_when_the_quotas_have_been_told(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crashes(*_: Any) -> None:
        raise ConnectionError

    one = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}
    assert (await service.post("/usage", one))[1]["quota_remaining"] == 9_999
    with monkeypatch.context() as before:
        before.setattr(subscriptions.Subscriptions, "_reach_quotas", crashes)
        status, said, _ = await post(service, "/subscriptions", ADA)
        assert (status, said["outcome"]) == (503, "unknown")
    assert (await post(service, "/subscriptions", ADA))[0] == 201
    assert (await service.post("/usage", one))[1]["quota_remaining"] > 90_000


async def test_a_credit_that_is_asked_for_again_under_its_key_is_given_once(
    months: Months,
) -> None:
    await months.plan("pro", "49.00")
    await months.create("ada", "pro")
    [first] = await months.invoices()
    path, credit = f"/invoices/{first.invoice_id}/credits", {"amount": "9.00", "reason": "outage"}
    answers = [await post(months.service, path, credit) for _ in range(3)]
    assert [status for status, _, _ in answers] == [200] * 3
    assert [said["credited"] for _, said, _ in answers] == ["9.00"] * 3
    assert [one[2].get("idempotent-replayed") for one in answers] == [None, "true", "true"]
    assert answers[0][1] == answers[1][1] == answers[2][1]
    assert (await months.invoices())[0].credited == 9
    assert (await post(months.service, path, credit | {"amount": "8.00"}))[0] == 422
    other = f"/invoices/{first.subscription_id}/credits"
    assert (await post(months.service, other, credit))[0] == 422  # whatever the invoice
    assert (await post(months.service, path, credit, key="k2"))[1]["credited"] == "18.00"
    await months.end_of_period("ada")
    second = (await months.invoices())[1]
    assert await months.lines(second) == [
        ("base_fee", "49.00"), ("credit", "-9.00"), ("credit", "-9.00")
    ]  # fmt: skip
