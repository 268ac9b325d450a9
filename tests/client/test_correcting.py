"""Corrections through the client: exact, once, whatever happens on the way."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from gateway.client import (
    BillingClient,
    BillingError,
    Conflict,
    Forbidden,
    IdempotencyKeyReused,
    InvalidUsage,
    NotFound,
    Retrying,
    SyncBillingClient,
    Unavailable,
)
from tests.client.conftest import HASTY, used
from tests.client.faults import (
    Fault,
    FaultProxy,
    Forward,
    answering,
    answering_too_late,
    cutting_the_answer,
    garbling_the_answer,
    losing_the_answer,
    losing_the_request,
)
from tests.conftest import Service

TWICE = "counted twice"
FAULTS: list[Fault | None] = [
    answering(503, Retry_After="0"),
    losing_the_request,
    losing_the_answer,
    cutting_the_answer,
    garbling_the_answer,
    answering_too_late,
]


def finance(service: Service) -> str:
    return service.token("finance")["Authorization"].removeprefix("Bearer ")


async def recorded(service: Service, user: str, *, drained: bool = True) -> UUID:
    """Ten calls of a user."""
    async with BillingClient(service.url) as billing:
        said = await billing.record(user_id=user, usage_type="api_calls", quantity=10)
    if drained:
        await service.drained()
    return said.usage_id


async def corrections(service: Service, original: UUID) -> list[int]:
    await service.drained()
    rows = await service.sql.fetch(
        "SELECT quantity::INTEGER AS quantity FROM usage_records WHERE reversal_of = $1", original
    )
    return [row["quantity"] for row in rows]


async def test_a_correction_is_answered_exactly(service: Service, user: str) -> None:
    original = await recorded(service, user)
    async with BillingClient(service.url, finance(service)) as billing:
        said = await billing.correct(original, quantity="-4", reason=TWICE)
        more = await billing.correct(str(original), quantity=3, reason=TWICE)
    assert said.correction_of == original
    assert [said.quantity, said.net_quantity, said.quota_remaining] == [-4, 6, 9994]
    assert (said.quota_exceeded, said.replayed) == (False, False)
    assert isinstance(said.net_quantity, Decimal)
    assert said.recorded_at.tzinfo is not None
    assert more.net_quantity == 9
    assert more.usage_id not in (said.usage_id, original)
    assert sorted(await corrections(service, original)) == [-4, 3]


async def test_every_fault_is_survived_by_one_correction(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    original = await recorded(service, user)
    proxy.faults = [*FAULTS]
    hasty = replace(HASTY, attempt_seconds=0.5)
    async with BillingClient(proxy.url, finance(service), retrying=hasty) as billing:
        said = await billing.correct(original, quantity=-4, reason=TWICE)
    assert (said.net_quantity, said.replayed) == (Decimal(6), True)
    assert proxy.faults == []
    assert len({seen.body for seen in proxy.seen}) == 1
    assert await used(service, user) == 6
    assert await corrections(service, original) == [-4]


async def test_usage_that_is_not_drained_yet_is_waited_for(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    original = await recorded(service, user, drained=False)

    async def drains(request: web.Request, forward: Forward) -> web.Response:
        answer = await forward()
        assert (answer.status, answer.headers["Retry-After"]) == (409, "1")
        await service.drained()
        answer.headers["Retry-After"] = "0"  # a test does not wait
        return answer

    proxy.faults = [drains]
    async with BillingClient(proxy.url, finance(service), retrying=HASTY) as billing:
        said = await billing.correct(original, quantity=-4, reason=TWICE)
    assert (said.net_quantity, said.replayed, len(proxy.seen)) == (Decimal(6), False, 2)


async def test_what_is_not_drained_within_the_deadline_is_a_conflict_for_now(
    service: Service, user: str
) -> None:
    original = await recorded(service, user, drained=False)
    brief = Retrying(deadline_seconds=0.9, attempt_seconds=60)
    async with BillingClient(service.url, finance(service), retrying=brief) as billing:
        with pytest.raises(Conflict, match="on its way") as raised:
            await billing.correct(original, quantity=-4, reason=TWICE)
    assert (raised.value.retry_after, raised.value.outcome_unknown) == (1, False)


async def test_an_unknown_outcome_is_settled_with_the_key_of_its_error(
    service: Service, proxy: FaultProxy, user: str
) -> None:
    original = await recorded(service, user)
    proxy.faults = [losing_the_answer]
    once = Retrying(deadline_seconds=30, first_pause_seconds=1e9, longest_pause_seconds=1e9)
    async with BillingClient(proxy.url, finance(service), retrying=once) as billing:
        with pytest.raises(Unavailable) as raised:
            await billing.correct(original, quantity=-4, reason=TWICE)
        assert raised.value.outcome_unknown
        key = raised.value.key
        said = await billing.correct(original, quantity=-4, reason=TWICE, key=key)
    assert said.replayed
    assert await corrections(service, original) == [-4]


@pytest.mark.parametrize(
    ("error", "changed"),
    [
        (Conflict, {"quantity": -11}),
        (InvalidUsage, {"quantity": "0.5"}),
        (InvalidUsage, {"reason": ""}),
        (IdempotencyKeyReused, {"reason": "another", "key": "used"}),
        (NotFound, {"usage_id": uuid4()}),
        (NotFound, {"usage_id": "../quota"}),
    ],
)
async def test_a_refusal_is_not_repeated(
    service: Service,
    proxy: FaultProxy,
    user: str,
    error: type[BillingError],
    changed: dict[str, Any],
) -> None:
    original = await recorded(service, user)
    async with BillingClient(proxy.url, finance(service)) as billing:
        asked: dict[str, Any] = {"usage_id": original, "quantity": -1, "reason": TWICE}
        await billing.correct(**asked, key="used")
        with pytest.raises(error) as raised:
            await billing.correct(**(asked | changed))
    assert (raised.value.outcome_unknown, len(proxy.seen)) == (False, 2)


async def test_only_finance_and_admins_correct(service: Service, user: str) -> None:
    original = await recorded(service, user)
    caller = service.token("service")["Authorization"].removeprefix("Bearer ")
    async with BillingClient(service.url, caller) as billing:
        with pytest.raises(Forbidden):
            await billing.correct(original, quantity=-1, reason=TWICE)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"quantity": -1.0}, TypeError),
        ({"quantity": "NaN"}, ValueError),
        ({"key": ""}, ValueError),
        ({"reason": "\ud800"}, ValueError),
    ],
)
async def test_what_cannot_be_sent_is_not(wrong: dict[str, Any], kind: type[Exception]) -> None:
    asked: dict[str, Any] = {"quantity": -1, "reason": TWICE} | wrong
    async with BillingClient("http://localhost:1") as billing:
        with pytest.raises(kind):
            await billing.correct(uuid4(), **asked)


async def test_a_thread_corrects_too(service: Service, user: str) -> None:
    original = await recorded(service, user)

    def work() -> None:
        with SyncBillingClient(service.url, finance(service), batch=True) as billing:
            said = billing.correct(original, quantity=-4, reason=TWICE, key="mine")
            again = billing.correct(original, quantity=-4, reason=TWICE, key="mine")
            assert (said.replayed, again.replayed) == (False, True)
            assert said.usage_id == again.usage_id

    await asyncio.to_thread(work)
    assert await corrections(service, original) == [-4]
