"""Whatever happens on the way, a record counts once, and who does not know it is told so."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from decimal import Decimal

import pytest

from gateway.client import Batching, BillingClient, Recorded, Retrying, Unavailable
from tests.client.conftest import HASTY, rows, used
from tests.client.faults import (
    Fault,
    FaultProxy,
    answering,
    answering_too_late,
    cutting_the_answer,
    garbling_the_answer,
    losing_the_answer,
    losing_the_request,
)
from tests.conftest import Service

RETRIED: list[Fault] = [
    answering(503, Retry_After="0"),
    answering(500),
    answering(408),
    losing_the_request,
    losing_the_answer,
    cutting_the_answer,
    garbling_the_answer,
]
IMPATIENT = replace(HASTY, attempt_seconds=0.3)

batched = pytest.mark.parametrize("batch", [False, True], ids=["alone", "batched"])


async def test_every_fault_is_survived_by_one_record(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    proxy.faults = [*RETRIED, answering_too_late, *RETRIED]
    async with BillingClient(proxy.url, retrying=IMPATIENT) as billing:
        said = await billing.record(user_id=user, usage_type="api_calls", quantity=5)
    assert (said.quota_remaining, said.replayed) == (Decimal(9995), True)
    assert len({seen.body for seen in proxy.seen}) == 1
    assert proxy.faults == []
    assert await used(service, user) == 5


async def test_reads_survive_faults_too(proxy: FaultProxy, user: str) -> None:
    proxy.faults = [*RETRIED]
    async with BillingClient(proxy.url, retrying=IMPATIENT) as billing:
        assert await billing.check(user_id=user, usage_type="api_calls", quantity=1)
        proxy.faults = [*RETRIED]
        assert (await billing.quota(user)).of("api_calls").used == 0
        proxy.faults = [*RETRIED]
        assert [one async for one in billing.usage(user_id=user)] == []


async def test_a_lost_batch_is_sent_again_whole_with_the_same_keys(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    proxy.faults = [losing_the_answer, losing_the_request]
    async with BillingClient(proxy.url, retrying=HASTY, batch=True) as billing:
        said = await asyncio.gather(
            *(billing.record(user_id=user, usage_type="api_calls", quantity=1) for _ in range(20))
        )
    assert len(proxy.seen) == 3
    assert len({seen.body for seen in proxy.seen}) == 1
    assert all(one.replayed for one in said)
    assert await used(service, user) == 20


async def test_an_answer_for_another_batch_is_no_answer(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    proxy.faults = [
        answering(200, {"results": results}) for results in ([], [{"status": 400}], ["?", "?"])
    ]
    async with BillingClient(proxy.url, retrying=HASTY, batch=True) as billing:
        await asyncio.gather(
            *(billing.record(user_id=user, usage_type="api_calls", quantity=1) for _ in range(2))
        )
    assert len(proxy.seen) == 4
    assert await used(service, user) == 2


async def test_only_the_open_records_of_a_batch_are_sent_again(
    proxy: FaultProxy, user: str
) -> None:
    def result(status: int) -> dict[str, object]:
        return {"status": status, "outcome": "unknown", "detail": "Redis did not answer"}

    open_ones = [400, 503, 500, 429, 503]
    proxy.faults = [answering(200, {"results": [result(status) for status in open_ones]})]
    async with BillingClient(proxy.url, retrying=HASTY, batch=True) as billing:
        said = await asyncio.gather(
            *(
                billing.record(user_id=user, usage_type="api_calls", quantity=1, key=f"k{n}")
                for n in range(5)
            ),
            return_exceptions=True,
        )
    assert [type(one).__name__ for one in said] == [
        "InvalidUsage",
        "Recorded",
        "Recorded",
        "RateLimited",
        "Recorded",
    ]
    assert [one["idempotency_key"] for one in proxy.seen[1].records] == ["k1", "k2", "k4"]


@batched
@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_lost_or_doubled_in_a_storm_of_faults(
    service: Service, proxy: FaultProxy, user: str, batch: bool, seed: int
) -> None:
    weather = random.Random(seed)
    faults = [*RETRIED * 3, answering_too_late]
    proxy.choose = lambda: weather.choice(faults) if weather.random() < 0.5 else None
    options = Batching(max_records=20) if batch else False
    async with BillingClient(proxy.url, retrying=IMPATIENT, batch=options) as billing:
        said = await asyncio.gather(
            *(
                billing.record(
                    user_id=f"{user}-{n % 5}", usage_type="api_calls", quantity=1, key=f"key-{n}"
                )
                for n in range(100)
            )
        )
    assert await rows(service, *(f"{user}-{n}" for n in range(5))) == {
        f"key-{n}": str(one.usage_id) for n, one in enumerate(said)
    }
    assert [await used(service, f"{user}-{n}") for n in range(5)] == [20] * 5


@batched
async def test_an_unknown_outcome_is_settled_later_with_the_key_of_the_error(
    service: Service, proxy: FaultProxy, user: str, batch: bool
) -> None:
    weather = random.Random(3)
    faults = [losing_the_answer, losing_the_request, answering_too_late, None]
    proxy.choose = lambda: weather.choice(faults)
    short = Retrying(deadline_seconds=0.2, attempt_seconds=0.1, first_pause_seconds=0.2)
    options = Batching(max_records=5) if batch else False
    async with BillingClient(proxy.url, retrying=short, batch=options) as billing:
        said = await asyncio.gather(
            *(billing.record(user_id=user, usage_type="api_calls", quantity=1) for _ in range(60)),
            return_exceptions=True,
        )
    errors = [one for one in said if isinstance(one, Unavailable)]
    recorded = [one for one in said if isinstance(one, Recorded)]
    assert len(errors) + len(recorded) == 60
    assert errors
    stored = await rows(service, user)
    for error in errors:
        assert error.key
        assert error.outcome_unknown or error.key not in stored
    async with BillingClient(service.url) as billing:
        for error in errors:
            later = await billing.record(
                user_id=user, usage_type="api_calls", quantity=1, key=error.key
            )
            assert stored.get(error.key or "", str(later.usage_id)) == str(later.usage_id)
    assert len(await rows(service, user)) == 60
    assert await used(service, user) == 60


@batched
async def test_a_service_that_is_not_there_has_recorded_nothing(batch: bool) -> None:
    # Long enough that a busy machine, too, is refused before the deadline cuts the attempt off.
    retrying = Retrying(deadline_seconds=1, first_pause_seconds=0.3)
    async with BillingClient("http://127.0.0.1:1", retrying=retrying, batch=batch) as billing:
        with pytest.raises(Unavailable, match="Cannot connect") as raised:
            await billing.record(user_id="ada", usage_type="api_calls", quantity=1)
    assert (raised.value.outcome_unknown, raised.value.status) == (False, None)


@batched
async def test_the_deadline_ends_an_attempt_that_hangs(
    proxy: FaultProxy, user: str, batch: bool
) -> None:
    for deadline in (0.2, 5, 30):  # a busy machine may not even have sent it within the first
        proxy.faults = [answering_too_late]
        retrying = Retrying(deadline_seconds=deadline, attempt_seconds=60)
        async with BillingClient(proxy.url, retrying=retrying, batch=batch) as billing:
            with pytest.raises(Unavailable) as raised:
                await billing.record(user_id=user, usage_type="api_calls", quantity=1)
        if proxy.seen:
            break
    assert "in time" in str(raised.value)
    assert raised.value.outcome_unknown
