"""Every refusal is an error of its own, the same whether records travel alone or together."""

from __future__ import annotations

import asyncio
import pickle
from decimal import Decimal
from typing import Any

import pytest

from gateway.client import (
    BillingClient,
    BillingError,
    Conflict,
    Forbidden,
    IdempotencyKeyReused,
    InvalidUsage,
    Limit,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Unauthorized,
)
from tests.client.conftest import used
from tests.client.faults import FaultProxy, answering
from tests.conftest import Service
from tests.ledger.plans import allows, on_plan

batched = pytest.mark.parametrize("batch", [False, True], ids=["alone", "batched"])


async def refusal(billing: BillingClient, user: str, **more: Any) -> BillingError:
    usage: dict[str, Any] = {"usage_type": "api_calls", "quantity": 1} | more
    with pytest.raises(BillingError) as raised:
        await billing.record(user_id=user, **usage)
    assert not raised.value.outcome_unknown
    assert raised.value.key
    return raised.value


@batched
async def test_what_is_wrong_with_a_record_is_told(
    service: Service, user: str, batch: bool
) -> None:
    async with BillingClient(service.url, batch=batch) as billing:
        unknown = await refusal(billing, user, usage_type="dreams")
        assert (type(unknown), unknown.status, unknown.slug) == (
            InvalidUsage,
            400,
            "invalid-usage",
        )
        assert "api_calls" in str(unknown)
        wrongs: list[dict[str, Any]] = [
            {"quantity": Decimal("0.5")},
            {"quantity": 0},
            {"quantity": -1},
            {"metadata": {"name": "x"}},
        ]
        for wrong in wrongs:
            assert type(await refusal(billing, user, **wrong)) is InvalidUsage


@batched
async def test_a_quota_that_is_used_up_names_its_limit(
    service: Service, user: str, batch: bool
) -> None:
    await on_plan(service.sql, user, allows("conversation_minutes", "10.5"))
    async with BillingClient(service.url, batch=batch) as billing:
        error = await refusal(
            billing, user, usage_type="conversation_minutes", quantity="10.51", key="k"
        )
        assert isinstance(error, QuotaExceeded)
        assert error.limit == Limit("user", "conversation_minutes", "month", Decimal("10.5"))
        assert (error.quota_remaining, error.key) == (Decimal("10.5"), "k")
        assert (error.retry_after or 0) > 0
        again = await billing.record(
            user_id=user, usage_type="conversation_minutes", quantity="10.5", key="k"
        )
    assert (again.quota_remaining, again.replayed) == (Decimal(0), False)


@batched
async def test_a_rate_limit_is_told_apart_and_never_retried(
    service: Service, proxy: FaultProxy, user: str, batch: bool
) -> None:
    await on_plan(service.sql, user, allows("api_calls", "100", rate=(5, 3600)))
    async with BillingClient(proxy.url, batch=batch) as billing:
        error = await refusal(billing, user, quantity=6)
    assert isinstance(error, RateLimited)
    assert error.limit == Limit("user", "api_calls", "3600s", Decimal(5))
    assert (error.retry_after or 0) > 0
    assert len(proxy.seen) == 1


@batched
async def test_a_key_used_for_other_usage_is_refused(
    service: Service, user: str, batch: bool
) -> None:
    async with BillingClient(service.url, batch=batch) as billing:
        await billing.record(user_id=user, usage_type="api_calls", quantity=1, key="k")
        error = await refusal(billing, user, quantity=2, key="k")
    assert (type(error), error.status, error.key) == (IdempotencyKeyReused, 422, "k")
    assert await used(service, user) == 1


@batched
async def test_a_token_that_is_not_accepted(service: Service, user: str, batch: bool) -> None:
    async with BillingClient(service.url, "forged", batch=batch) as billing:
        assert type(await refusal(billing, user)) is Unauthorized


@batched
async def test_an_organization_that_the_token_does_not_name(
    service: Service, user: str, batch: bool
) -> None:
    token = service.token(organizations=["clinic"])["Authorization"][7:]
    async with BillingClient(service.url, token, batch=batch) as billing:
        assert type(await refusal(billing, user, organization_id="other")) is Forbidden


@batched
async def test_a_subscription_that_is_contradicted(
    service: Service, user: str, batch: bool
) -> None:
    await on_plan(service.sql, user, allows("api_calls", "5"), organization="clinic")
    async with BillingClient(service.url, batch=batch) as billing:
        assert type(await refusal(billing, user, organization_id="other")) is Conflict


async def test_a_foreign_user_is_not_found(service: Service, user: str) -> None:
    token = service.token("user", user=user)["Authorization"][7:]
    async with BillingClient(service.url, token) as billing:
        with pytest.raises(NotFound) as raised:
            await billing.quota("eve")
    assert raised.value.key is None


@batched
@pytest.mark.parametrize(
    ("status", "kind"),
    [(302, BillingError), (405, BillingError), (413, InvalidUsage), (429, RateLimited)],
)
async def test_an_answer_of_something_in_between_is_told_once(
    proxy: FaultProxy, user: str, batch: bool, status: int, kind: type[BillingError]
) -> None:
    proxy.faults = [answering(status, Location="http://localhost:1/", Retry_After="7")]
    async with BillingClient(proxy.url, batch=batch) as billing:
        error = await refusal(billing, user)
    assert (type(error), error.status, error.slug, error.retry_after) == (kind, status, "", 7)
    assert len(proxy.seen) == 1


async def test_callers_of_one_batch_fail_each_with_their_own_error(
    service: Service, user: str
) -> None:
    async with BillingClient(service.url, "forged", batch=True) as billing:
        errors = await asyncio.gather(
            *(
                billing.record(user_id=user, usage_type="api_calls", quantity=1, key=f"k{n}")
                for n in range(10)
            ),
            return_exceptions=True,
        )
    assert [getattr(error, "key", None) for error in errors] == [f"k{n}" for n in range(10)]
    assert len({id(error) for error in errors}) == 10


def test_an_error_survives_pickling() -> None:
    error = QuotaExceeded("no", quota_remaining=Decimal(3), status=429, key="k", retry_after=1.0)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(again) is QuotaExceeded
    assert (str(again), vars(again)) == (str(error), vars(error))
