"""Tokens rotate, and are seen nowhere."""

from __future__ import annotations

import asyncio
import logging
import traceback

import pytest

from gateway.client import (
    BillingClient,
    BillingError,
    Retrying,
    SyncBillingClient,
    Unauthorized,
    Unavailable,
)
from tests.client.conftest import HASTY
from tests.client.faults import FaultProxy, answering, losing_the_answer
from tests.conftest import Service

SECRET = "secret.of-the.service"


def bearer(service: Service) -> str:
    return service.token()["Authorization"].removeprefix("Bearer ")


@pytest.mark.parametrize("batch", [False, True])
async def test_a_token_may_come_from_a_function_async_or_not(
    service: Service, user: str, batch: bool
) -> None:
    async def fetch() -> str:
        return bearer(service) + "\n"

    for token in (fetch, lambda: bearer(service)):
        async with BillingClient(service.url, token, batch=batch) as billing:
            await billing.record(user_id=user, usage_type="api_calls", quantity=1)


async def test_every_attempt_carries_the_token_of_now(proxy: FaultProxy, user: str) -> None:
    tokens = iter(["one", "two", "three"])
    proxy.faults = [losing_the_answer, answering(500), answering(403)]
    async with BillingClient(proxy.url, lambda: next(tokens), retrying=HASTY) as billing:
        with pytest.raises(BillingError):
            await billing.check(user_id=user, usage_type="api_calls", quantity=1)
    assert [seen.authorization for seen in proxy.seen] == [
        "Bearer one",
        "Bearer two",
        "Bearer three",
    ]


async def test_a_token_replaced_meanwhile_is_tried_once(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    tokens = iter(["expired", bearer(service)])
    async with BillingClient(proxy.url, lambda: next(tokens)) as billing:
        await billing.record(user_id=user, usage_type="api_calls", quantity=1)
    async with BillingClient(proxy.url, lambda: "expired") as billing:
        with pytest.raises(Unauthorized):
            await billing.record(user_id=user, usage_type="api_calls", quantity=1)
    assert len(proxy.seen) == 3


@pytest.mark.parametrize("batch", [False, True])
async def test_an_error_of_the_token_function_reaches_the_caller(batch: bool) -> None:
    def fetch() -> str:
        raise LookupError("no token today")

    async with BillingClient("http://localhost:1", fetch, batch=batch) as billing:
        with pytest.raises(LookupError, match="today"):
            await billing.record(user_id="ada", usage_type="api_calls", quantity=1)


async def test_a_token_function_that_hangs_does_not_outlast_the_deadline() -> None:
    async def fetch() -> str:
        await asyncio.Event().wait()
        return ""

    retrying = Retrying(deadline_seconds=0.05)
    async with BillingClient("http://localhost:1", fetch, retrying=retrying) as billing:
        with pytest.raises(Unavailable, match="no token in time") as raised:
            await billing.record(user_id="ada", usage_type="api_calls", quantity=1)
    assert not raised.value.outcome_unknown


@pytest.mark.parametrize("token", ["", " ", f"{SECRET}\nX-Other: 1", f"{SECRET} x", SECRET + "é"])
def test_a_string_that_is_no_token_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ValueError, match="the token has") as raised:
        BillingClient("http://localhost:1", token)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("batch", [False, True])
async def test_the_token_is_in_no_error_log_or_repr(
    proxy: FaultProxy, user: str, batch: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    short = Retrying(deadline_seconds=0.1, first_pause_seconds=0.02)
    for url in (proxy.url, "http://127.0.0.1:1"):
        async with BillingClient(url, SECRET, batch=batch, retrying=short) as billing:
            shown += [repr(billing), repr(vars(billing)), repr(vars(billing._http))]
            for faults in ([], [losing_the_answer] * 20, [answering(302, Location="/x")]):
                proxy.faults = [*faults]
                with pytest.raises(BillingError) as raised:
                    await billing.record(user_id=user, usage_type="api_calls", quantity=1)
                told = traceback.TracebackException.from_exception(
                    raised.value, capture_locals=True
                )
                shown += [str(raised.value), repr(raised.value), "".join(told.format())]
    sync = await asyncio.to_thread(SyncBillingClient, proxy.url, SECRET)
    shown += [repr(sync), repr(vars(sync))]
    await asyncio.to_thread(sync.close)
    assert caplog.records
    # The test's own frame knows the token; its lines are not the client's.
    lines = [line for text in shown for line in text.splitlines()]
    assert not [line for line in lines if SECRET in line and "SECRET" not in line]
    assert SECRET not in caplog.text
