"""What each call sends and gives back, with the real service."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from gateway.client import BillingClient, Limit, Quantity
from tests.client.conftest import rows, used
from tests.client.faults import FaultProxy
from tests.conftest import Service
from tests.ledger.plans import allows, on_plan


async def test_a_record_is_counted_and_answered_exactly(service: Service, user: str) -> None:
    async with BillingClient(service.url) as billing:
        said = await billing.record(
            user_id=user, usage_type="conversation_minutes", quantity=Decimal("59.51")
        )
    assert isinstance(said.usage_id, UUID)
    assert said.recorded_at.tzinfo is not None
    assert (said.quota_remaining, said.quota_exceeded, said.replayed) == (
        Decimal("1440.49"),
        False,
        False,
    )
    assert isinstance(said.quota_remaining, Decimal)


@pytest.mark.parametrize(
    ("quantity", "sent"),
    [
        (7, b'"quantity":7}'),
        (Decimal("0.10"), b'"quantity":0.10}'),
        (Decimal("1E+3"), b'"quantity":1E+3}'),
        ("15.5", b'"quantity":15.5}'),
        (Decimal("123456.01"), b'"quantity":123456.01}'),
    ],
)
async def test_a_quantity_is_sent_digit_for_digit(
    service: Service, proxy: FaultProxy, user: str, quantity: Quantity, sent: bytes
) -> None:
    await on_plan(service.sql, user, allows("conversation_minutes", None))
    async with BillingClient(proxy.url) as billing:
        await billing.record(user_id=user, usage_type="conversation_minutes", quantity=quantity)
    assert proxy.seen[0].body.endswith(sent)


@pytest.mark.parametrize("quantity", [1.5, 1.0, True, None, b"1", 1j])
async def test_a_quantity_that_is_not_exact_is_a_type_error(quantity: Any) -> None:
    async with BillingClient("http://localhost:1") as billing:
        with pytest.raises(TypeError, match=r'Decimal\("15.5"\) or the string "15.5"'):
            await billing.record(user_id="ada", usage_type="api_calls", quantity=quantity)


@pytest.mark.parametrize("quantity", ["", "much", "NaN", Decimal("Infinity"), Decimal("sNaN")])
async def test_a_quantity_that_is_no_finite_number_is_a_value_error(quantity: Quantity) -> None:
    async with BillingClient("http://localhost:1") as billing:
        with pytest.raises(ValueError, match="quantity"):
            await billing.check(user_id="ada", usage_type="api_calls", quantity=quantity)


@pytest.mark.parametrize(
    "wrong",
    [{"key": ""}, {"key": "x" * 256}, {"key": "tab\t"}, {"occurred_at": datetime(2026, 1, 1)}],
)
async def test_what_the_service_would_misread_is_not_sent(wrong: dict[str, Any]) -> None:
    async with BillingClient("http://localhost:1") as billing:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            await billing.record(user_id="ada", usage_type="api_calls", quantity=1, **wrong)


async def test_text_that_is_not_unicode_fails_at_its_caller(service: Service) -> None:
    async with BillingClient(service.url, batch=True) as billing:
        with pytest.raises(ValueError, match="surrogates"):
            await billing.record(user_id="\ud800", usage_type="api_calls", quantity=1)


async def test_everything_that_can_be_said_of_a_record_arrives(service: Service, user: str) -> None:
    occurred = datetime.now(timezone(timedelta(hours=5))) - timedelta(days=1)
    async with BillingClient(service.url, service.token()["Authorization"][7:]) as billing:
        first = await billing.record(
            user_id=user,
            usage_type="api_calls",
            quantity=3,
            organization_id="clinic",
            metadata={"feature": "triage"},
            occurred_at=occurred,
            key="visit 7, ünï",
        )
        await service.drained()
        [listed] = [one async for one in billing.usage(user_id=user, organization_id="clinic")]
    assert listed.usage_id == first.usage_id
    assert (listed.quantity, listed.metadata) == (Decimal(3), {"feature": "triage"})
    assert abs(listed.occurred_at - occurred) < timedelta(milliseconds=1)
    assert listed.recorded_at == first.recorded_at
    assert (listed.idempotency_key, listed.recorded_by) == ("visit 7, ünï", "service-dev")
    assert listed.reversal_of is None


async def test_every_record_has_a_key_of_its_own(service: Service, user: str) -> None:
    async with BillingClient(service.url) as billing:
        said = [
            await billing.record(user_id=user, usage_type="api_calls", quantity=1) for _ in range(3)
        ]
    assert len({one.usage_id for one in said}) == 3
    assert {UUID(key).version for key in await rows(service, user)} == {4}


@pytest.mark.parametrize("batch", [False, True])
async def test_the_same_key_is_answered_again_and_counts_once(
    service: Service, user: str, batch: bool
) -> None:
    async with BillingClient(service.url, batch=batch) as billing:
        said = [
            await billing.record(user_id=user, usage_type="api_calls", quantity=4, key="turn-1")
            for _ in range(3)
        ]
    assert [one.replayed for one in said] == [False, True, True]
    assert len({one.usage_id for one in said}) == 1
    assert await used(service, user) == 4


async def test_a_check_says_yes_or_no_and_writes_nothing(service: Service, user: str) -> None:
    await on_plan(service.sql, user, allows("api_calls", "5"))
    async with BillingClient(service.url) as billing:
        yes = await billing.check(user_id=user, usage_type="api_calls", quantity=5)
        no = await billing.check(user_id=user, usage_type="api_calls", quantity=6)
    limit = Limit("user", "api_calls", "month", Decimal(5))
    assert (yes.allowed, bool(yes), yes.quota_remaining, yes.limit) == (
        True,
        True,
        Decimal(5),
        limit,
    )
    assert (no.allowed, bool(no), no.quota_remaining, no.limit) == (False, False, Decimal(5), limit)
    assert await used(service, user) == 0


async def test_unlimited_is_none(service: Service, user: str) -> None:
    await on_plan(service.sql, user, allows("api_calls", None))
    async with BillingClient(service.url) as billing:
        checked = await billing.check(user_id=user, usage_type="api_calls", quantity=10**9)
        recorded = await billing.record(user_id=user, usage_type="api_calls", quantity=10**9)
        quota = (await billing.quota(user)).of("api_calls")
    assert (checked.allowed, checked.quota_remaining, checked.limit) == (True, None, None)
    assert recorded.quota_remaining is None
    assert (quota.limit, quota.remaining, quota.used) == (None, None, Decimal(10**9))


async def test_quotas_are_typed(service: Service, user: str) -> None:
    async with BillingClient(service.url) as billing:
        await billing.record(user_id=user, usage_type="conversation_minutes", quantity="0.75")
        quotas = await billing.quota(user)
    assert (quotas.plan_tier, quotas.organization_id) == ("basic", None)
    assert quotas.start <= datetime.now(UTC) < quotas.end
    minutes = quotas.of("conversation_minutes")
    assert (minutes.used, minutes.remaining, minutes.limit) == (
        Decimal("0.75"),
        Decimal("1499.25"),
        Decimal(1500),
    )
    assert (minutes.enforcement, minutes.exceeded, minutes.resets_at) == ("hard", False, quotas.end)
    assert {one.usage_type for one in quotas} >= {"api_calls", "ai_tokens"}
    with pytest.raises(KeyError):
        quotas.of("dreams")


async def test_a_list_is_read_over_all_its_pages(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    async with BillingClient(proxy.url) as billing:
        made = [
            await billing.record(user_id=user, usage_type="api_calls", quantity=n, key=f"k{n}")
            for n in range(1, 8)
        ]
        await service.drained()
        proxy.seen.clear()
        found = [one async for one in billing.usage(user_id=user, page_size=3)]
        assert len(proxy.seen) == 3
        newest = found[0].recorded_at
        before = [
            one.usage_id
            async for one in billing.usage(
                user_id=user,
                usage_type="api_calls",
                since=newest - timedelta(hours=1),
                until=newest,
            )
        ]
    # Two may be of the same millisecond: then the id decides.
    made.sort(key=lambda one: (one.recorded_at, str(one.usage_id)), reverse=True)
    assert [one.usage_id for one in found] == [one.usage_id for one in made]
    assert sorted(one.quantity for one in found) == [1, 2, 3, 4, 5, 6, 7]
    assert before == [one.usage_id for one in made if one.recorded_at < newest]


async def test_a_closed_client_refuses_calls(service: Service, user: str) -> None:
    billing = BillingClient(service.url)
    await billing.quota(user)
    await billing.close()
    await billing.close()
    with pytest.raises(RuntimeError, match="closed"):
        await billing.quota(user)


@pytest.mark.parametrize("url", ["localhost:8081", "ftp://host", "http://", "http://a:b@host"])
def test_a_url_must_be_one(url: str) -> None:
    with pytest.raises(ValueError, match="url must be"):
        BillingClient(url)
