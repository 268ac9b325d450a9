"""What a block took is recorded exactly, also when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any

import pytest

from gateway.client import BillingClient, QuotaExceeded
from tests.client.conftest import HASTY, used
from tests.client.faults import FaultProxy, losing_the_answer
from tests.conftest import Service
from tests.ledger.plans import allows, on_plan

SECOND = 1_000_000_000


def taking(nanoseconds: int) -> Callable[[], int]:
    """A clock that is read at the start and at the end."""
    times = iter([123, 123 + nanoseconds])
    return lambda: next(times)


@pytest.mark.parametrize(
    ("nanoseconds", "options", "quantity"),
    [
        (60 * SECOND, {}, "1.00"),
        (60 * SECOND + 1, {}, "1.01"),
        (90 * SECOND, {}, "1.50"),
        (600_000_000, {}, "0.01"),
        (600_000_001, {}, "0.02"),
        (1, {}, "0.01"),
        (0, {}, "0.01"),
        (61 * SECOND, {"decimals": 0}, "2"),
        (61 * SECOND, {"decimals": 6}, "1.016667"),
        (3600 * SECOND, {"unit_seconds": 3600}, "1.00"),
        (10**24 + 1, {"unit_seconds": 1, "decimals": 6}, "1000000000000000.000001"),
    ],
)
async def test_a_duration_is_rounded_up_exactly(
    service: Service, user: str, nanoseconds: int, options: dict[str, Any], quantity: str
) -> None:
    billing = BillingClient("http://localhost:1")
    meter = billing.meter(
        user_id=user, usage_type="conversation_minutes", clock=taking(nanoseconds), **options
    )
    with localcontext() as context:
        context.prec = 3  # the caller's arithmetic is not ours
        meter._start()
        assert str(meter._stop()) == quantity


async def test_a_block_is_recorded_when_it_ends(service: Service, user: str) -> None:
    async with BillingClient(service.url) as billing:
        async with billing.meter(
            user_id=user, usage_type="conversation_minutes", clock=taking(90 * SECOND), key="talk"
        ) as meter:
            assert (meter.recorded, meter.quantity, meter.key) == (None, None, "talk")
        assert meter.quantity == Decimal("1.5")
        assert meter.recorded is not None
        assert meter.recorded.quota_remaining == Decimal("1498.5")
        again = await billing.record(
            user_id=user, usage_type="conversation_minutes", quantity="1.5", key="talk"
        )
    assert again.replayed


async def test_the_real_clock_measures_something(service: Service, user: str) -> None:
    async with (
        BillingClient(service.url) as billing,
        billing.meter(user_id=user, usage_type="conversation_minutes") as meter,
    ):
        pass
    assert meter.quantity is not None
    assert meter.quantity >= Decimal("0.01")


@pytest.mark.parametrize("kind", [KeyError, asyncio.CancelledError])
async def test_a_block_that_fails_is_recorded_and_its_error_stays(
    service: Service, user: str, kind: type[BaseException]
) -> None:
    async with BillingClient(service.url) as billing:
        with pytest.raises(kind) as raised:
            async with billing.meter(
                user_id=user, usage_type="api_calls", decimals=0, clock=taking(150 * SECOND)
            ):
                raise kind("broken")
    assert not hasattr(raised.value, "__notes__")
    assert await used(service, user) == 3


async def test_a_failed_recording_is_a_note_on_the_error_of_the_block(
    service: Service, user: str
) -> None:
    await on_plan(service.sql, user, allows("api_calls", "2"))
    async with BillingClient(service.url) as billing:
        with pytest.raises(KeyError) as raised:
            async with billing.meter(
                user_id=user, usage_type="api_calls", decimals=0, clock=taking(150 * SECOND)
            ) as meter:
                raise KeyError("broken")
    [note] = raised.value.__notes__
    assert "QuotaExceeded" in note
    assert meter.recorded is None


async def test_a_failed_recording_is_the_error_of_a_block_that_went_well(
    service: Service, user: str
) -> None:
    await on_plan(service.sql, user, allows("api_calls", "2"))
    async with BillingClient(service.url) as billing:
        with pytest.raises(QuotaExceeded):
            async with billing.meter(
                user_id=user, usage_type="api_calls", decimals=0, clock=taking(150 * SECOND)
            ):
                pass


async def test_a_meter_whose_answer_is_lost_counts_once(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    proxy.faults = [losing_the_answer, losing_the_answer]
    async with (
        BillingClient(proxy.url, retrying=HASTY) as billing,
        billing.meter(
            user_id=user, usage_type="api_calls", decimals=0, clock=taking(SECOND)
        ) as meter,
    ):
        pass
    assert meter.recorded is not None
    assert meter.recorded.replayed
    assert await used(service, user) == 1


async def test_a_meter_measures_one_block(service: Service, user: str) -> None:
    async with BillingClient(service.url) as billing:
        meter = billing.meter(user_id=user, usage_type="conversation_minutes")
        async with meter:
            with pytest.raises(RuntimeError, match="one block"):
                await meter.__aenter__()


@pytest.mark.parametrize(
    "wrong", [{"unit_seconds": 0}, {"unit_seconds": 1.5}, {"decimals": 7}, {"decimals": -1}]
)
def test_units_that_cannot_be_measured_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BillingClient("http://localhost:1").meter(user_id="a", usage_type="b", **wrong)
