"""The client for code without asyncio: the same calls, from one thread or many."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from gateway.client import (
    Batching,
    BillingClient,
    QuotaExceeded,
    Recorded,
    Retrying,
    SyncBillingClient,
    Unavailable,
)
from tests.client.conftest import HASTY, rows, used
from tests.client.faults import FaultProxy, losing_the_answer
from tests.conftest import Service
from tests.ledger.plans import allows, on_plan


async def test_all_calls_work_without_a_loop(service: Service, user: str) -> None:
    def work() -> list[Decimal]:
        with SyncBillingClient(service.url) as billing:
            assert billing.check(user_id=user, usage_type="api_calls", quantity=1)
            for n in (1, 2, 3):
                billing.record(user_id=user, usage_type="api_calls", quantity=n)
            times = iter([0, 90_000_000_000])
            with billing.meter(
                user_id=user, usage_type="conversation_minutes", clock=lambda: next(times)
            ) as meter:
                pass
            assert meter.recorded is not None
            quotas = billing.quota(user)
            assert quotas.of("api_calls").used == 6
            assert quotas.of("conversation_minutes").used == Decimal("1.5")
            asyncio.run_coroutine_threadsafe(service.drained(), loop).result()
            found = billing.usage(user_id=user, usage_type="api_calls", page_size=2)
            return [one.quantity for one in found]

    loop = asyncio.get_running_loop()
    assert await asyncio.to_thread(work) == [3, 2, 1]


@pytest.mark.parametrize("batch", [False, True])
async def test_threads_share_a_client_through_faults(
    service: Service, proxy: FaultProxy, user: str, batch: bool
) -> None:
    proxy.faults = [losing_the_answer, None, losing_the_answer]

    def work() -> list[Recorded]:
        with (
            SyncBillingClient(proxy.url, batch=batch, retrying=HASTY) as billing,
            ThreadPoolExecutor(8) as threads,
        ):
            return list(
                threads.map(
                    lambda n: billing.record(
                        user_id=user, usage_type="api_calls", quantity=1, key=f"k{n}"
                    ),
                    range(100),
                )
            )

    said = await asyncio.to_thread(work)
    assert await rows(service, user) == {f"k{n}": str(one.usage_id) for n, one in enumerate(said)}
    assert await used(service, user) == 100


async def test_records_of_threads_travel_together(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    def work() -> None:
        options = Batching(max_records=20, max_delay_seconds=60)
        with (
            SyncBillingClient(proxy.url, batch=options) as billing,
            ThreadPoolExecutor(20) as threads,
        ):
            for _ in range(20):
                threads.submit(billing.record, user_id=user, usage_type="api_calls", quantity=1)

    await asyncio.to_thread(work)
    assert len(proxy.seen) == 1
    assert await used(service, user) == 20


async def test_errors_are_the_same_and_a_meter_keeps_the_error_of_its_block(
    service: Service,
    user: str,
) -> None:
    await on_plan(service.sql, user, allows("api_calls", "2"))

    def work() -> None:
        with SyncBillingClient(service.url) as billing:
            with pytest.raises(QuotaExceeded) as refused:
                billing.record(user_id=user, usage_type="api_calls", quantity=3)
            assert refused.value.quota_remaining == 2
            with pytest.raises(TypeError, match="Decimal"):
                billing.record(user_id=user, usage_type="api_calls", quantity=0.5)  # type: ignore[arg-type]
            times = iter([0, 180_000_000_000])
            with (
                pytest.raises(KeyError) as raised,
                billing.meter(
                    user_id=user, usage_type="api_calls", decimals=0, clock=lambda: next(times)
                ),
            ):
                raise KeyError("broken")
            assert "QuotaExceeded" in raised.value.__notes__[0]

    await asyncio.to_thread(work)


def test_closing_waits_for_other_threads_and_then_refuses() -> None:
    billing = SyncBillingClient(
        "http://127.0.0.1:1", retrying=Retrying(deadline_seconds=0.1, first_pause_seconds=0.02)
    )
    entered, errors = threading.Event(), list[BaseException]()

    def work() -> None:
        entered.set()
        try:
            billing.record(user_id="ada", usage_type="api_calls", quantity=1)
        except (Unavailable, RuntimeError) as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    billing.close()
    billing.close()
    thread.join()
    assert len(errors) == 1
    assert "billing-client" not in {one.name for one in threading.enumerate()}
    with pytest.raises(RuntimeError, match="closed"):
        billing.quota("ada")


def test_a_client_made_before_a_fork_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with SyncBillingClient("http://127.0.0.1:1") as billing:
        process = os.getpid()
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: process + 1)
            with pytest.raises(RuntimeError, match="fork"):
                billing.quota("ada")
            billing.close()


@pytest.mark.parametrize(
    "name", ["__init__", "record", "correct", "check", "quota", "usage", "meter"]
)
def test_both_clients_take_the_same_arguments(name: str) -> None:
    ours = inspect.signature(getattr(BillingClient, name)).parameters
    theirs = inspect.signature(getattr(SyncBillingClient, name)).parameters
    assert ours == theirs
