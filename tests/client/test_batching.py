"""Many concurrent records become few requests, and everyone gets their own answer."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from gateway.client import Batching, BillingClient, InvalidUsage, QuotaExceeded, Recorded
from tests.client.conftest import rows, used
from tests.client.faults import FaultProxy, Forward, holding
from tests.conftest import Service
from tests.ledger.plans import allows, on_plan


async def record(billing: BillingClient, user: str, key: str) -> Recorded:
    return await billing.record(user_id=user, usage_type="api_calls", quantity=1, key=key)


async def test_a_thousand_concurrent_records_are_few_requests(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    async with BillingClient(proxy.url, batch=Batching(max_delay_seconds=0.3)) as billing:
        said = await asyncio.gather(
            *(record(billing, f"{user}-{n % 50}", f"k{n}") for n in range(1000))
        )
    assert len(proxy.seen) <= 3
    assert await rows(service, *(f"{user}-{n}" for n in range(50))) == {
        f"k{n}": str(one.usage_id) for n, one in enumerate(said)
    }
    assert sorted(one.quota_remaining or 0 for one in said[::50]) == list(range(9980, 10000))


async def test_refusals_reach_the_caller_they_belong_to(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    await on_plan(service.sql, user, allows("api_calls", "3"))
    async with BillingClient(proxy.url, batch=True) as billing:
        said = await asyncio.gather(
            *(record(billing, user, f"k{n}") for n in range(5)),
            billing.record(user_id=user, usage_type="dreams", quantity=1),
            record(billing, f"{user}-other", "good"),
            return_exceptions=True,
        )
    kinds = [type(one) for one in said]
    assert kinds == [Recorded] * 3 + [QuotaExceeded] * 2 + [InvalidUsage, Recorded]
    assert len(proxy.seen) == 1


async def test_a_lone_record_does_not_wait_for_company_for_ever(
    service: Service, user: str
) -> None:
    async with BillingClient(service.url, batch=True) as billing:
        assert (await record(billing, user, "alone")).quota_remaining == 9999


async def test_records_gather_while_all_requests_are_under_way(
    proxy: FaultProxy, user: str
) -> None:
    release = asyncio.Event()
    proxy.faults = [holding(release)]
    options = Batching(max_requests=1, max_delay_seconds=0)
    async with BillingClient(proxy.url, batch=options) as billing, asyncio.TaskGroup() as tasks:
        tasks.create_task(record(billing, user, "first"))
        await proxy.arrived.wait()
        for n in range(30):
            tasks.create_task(record(billing, user, f"k{n}"))
        release.set()
    assert [len(seen.records) for seen in proxy.seen] == [1, 30]


async def test_no_more_requests_than_allowed_are_under_way(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    under_way, most = 0, 0

    async def counting(request: web.Request, forward: Forward) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        answer = await forward()
        under_way -= 1
        return answer

    proxy.choose = lambda: counting
    options = Batching(max_records=5, max_requests=2)
    async with BillingClient(proxy.url, batch=options) as billing:
        await asyncio.gather(*(record(billing, user, f"k{n}") for n in range(100)))
    assert (len(proxy.seen), most) == (20, 2)


async def test_a_full_queue_holds_further_callers_back(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    options = Batching(max_pending=3, max_requests=1)
    async with BillingClient(proxy.url, batch=options) as billing:
        await asyncio.gather(*(record(billing, user, f"k{n}") for n in range(20)))
    assert max(len(seen.records) for seen in proxy.seen) <= 3
    assert await used(service, user) == 20


async def test_a_request_is_not_larger_than_asked_for(proxy: FaultProxy, user: str) -> None:
    options = Batching(max_records=7, max_delay_seconds=0.3)  # a busy machine pauses
    async with BillingClient(proxy.url, batch=options) as billing:
        await asyncio.gather(*(record(billing, user, f"k{n}") for n in range(20)))
    assert [len(seen.records) for seen in proxy.seen] == [7, 7, 6]


async def test_a_request_stays_below_what_the_service_takes(proxy: FaultProxy, user: str) -> None:
    long = "x" * 5000
    async with BillingClient(proxy.url, batch=Batching(max_records=1000)) as billing:
        said = await asyncio.gather(
            *(
                billing.record(user_id=user, usage_type="dreams", quantity=1, metadata={long: "x"})
                for n in range(900)
            ),
            return_exceptions=True,
        )
    assert {type(one) for one in said} == {InvalidUsage}
    assert {getattr(one, "status", 0) for one in said} == {400}
    assert max(len(seen.body) for seen in proxy.seen) < 2**20 + 100


async def test_a_caller_cancelled_before_sending_records_nothing(
    service: Service, user: str
) -> None:
    options = Batching(max_delay_seconds=60)
    billing = BillingClient(service.url, batch=options)
    tasks = [asyncio.create_task(record(billing, user, f"k{n}")) for n in range(10)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.wait(tasks[::2])
    await billing.close()
    assert all(task.cancelled() for task in tasks[::2])
    recorded = {f"k{n}": str(tasks[n].result().usage_id) for n in range(1, 10, 2)}
    assert await rows(service, user) == recorded


async def test_callers_cancelled_under_way_do_not_disturb_others(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    release = asyncio.Event()
    proxy.faults = [holding(release)]
    async with BillingClient(proxy.url, batch=True) as billing:
        tasks = [asyncio.create_task(record(billing, user, f"k{n}")) for n in range(10)]
        await proxy.arrived.wait()
        for task in tasks[:5]:
            task.cancel()
        await asyncio.wait(tasks[:5])
        release.set()
        said = await asyncio.gather(*tasks[5:])
        again = [await record(billing, user, f"k{n}") for n in range(5)]
    assert not any(one.replayed for one in said)
    assert all(one.replayed for one in again)
    assert await used(service, user) == 10


async def test_closing_sends_what_waits(service: Service, proxy: FaultProxy, user: str) -> None:
    billing = BillingClient(proxy.url, batch=Batching(max_delay_seconds=60, max_pending=4))
    tasks = [asyncio.create_task(record(billing, user, f"k{n}")) for n in range(10)]
    await asyncio.sleep(0)
    await billing.close()
    assert all(task.done() for task in tasks)
    assert {task.result().usage_id for task in tasks} != set()
    assert len(await rows(service, user)) == 10
    with pytest.raises(RuntimeError, match="closed"):
        await record(billing, user, "late")


async def test_the_same_key_twice_in_a_batch_counts_once(service: Service, user: str) -> None:
    async with BillingClient(service.url, batch=True) as billing:
        said = await asyncio.gather(record(billing, user, "k"), record(billing, user, "k"))
    assert sorted(one.replayed for one in said) == [False, True]
    assert await used(service, user) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"max_records": 0}, {"max_records": 1001}, {"max_requests": 0}, {"max_delay_seconds": -1}],
)
def test_options_that_cannot_work_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Batching(**wrong)
