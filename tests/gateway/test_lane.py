"""Events share calls; a crowd waits by organisation, and nobody for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway import lane as lanes
from gateway.lane import CALL_EVENTS, CALLS, CROWD, WAITING_EVENTS, Lane
from gateway.problems import Problem
from lua.connection import RedisUnavailable
from lua.packing import unpack_said
from lua.record_call import RecordCall
from lua.types import Answer, Event, Outcome, Recorded


def event(tenant: int, number: int = 0) -> Event:
    who = b"o" + tenant.to_bytes(16, "big") + number.to_bytes(16, "big")
    return Event(0, who, number.to_bytes(16, "big"), b"", "calls", 1, None, b"")


SAID = slice(6, None, 2)  # what was said of each event, among the arguments of record.lua


class Redis:
    """Stands in for the recorder: answers calls when told to. An answer's `recorded_at` is the
    number of its event."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []  # usage ids
        self._replies: list[tuple[asyncio.Future[Recorded], Callable[[], None]]] = []
        self._asked = asyncio.Event()

    def send(self, call: RecordCall, landed: Callable[[], None]) -> asyncio.Future[Recorded]:
        reply: asyncio.Future[Recorded] = asyncio.get_running_loop().create_future()
        self.calls.append([unpack_said(raw).usage_id for raw in call.args(True, 1)[SAID]])
        self._replies.append((reply, landed))
        self._asked.set()
        return reply

    async def call(self, number: int) -> list[bytes]:
        async with asyncio.timeout(5):
            while len(self.calls) <= number:
                self._asked.clear()
                await self._asked.wait()
        return self.calls[number]

    def answer(self, number: int, error: Exception | None = None) -> None:
        reply, landed = self._replies[number]
        landed()
        if error:
            reply.set_exception(error)
        else:
            answers = [
                Answer(Outcome.RECORDED, int.from_bytes(usage_id))
                for usage_id in self.calls[number]
            ]
            reply.set_result(Recorded(answers, {0: "1-1"}))


class Bench:
    def __init__(self) -> None:
        self.redis = Redis()
        self.lane = Lane(self.redis)  # type: ignore[arg-type]
        self.said: dict[bytes, Any] = {}
        self._told = asyncio.Event()

    def submit(self, one: Event) -> None:
        def done(outcome: Any) -> None:
            assert one.who not in self.said, "told twice"
            self.said[one.who] = outcome
            self._told.set()

        self.lane.submit(one, done)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.said) < count:
                self._told.clear()
                await self._told.wait()


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_what_comes_in_one_moment_goes_in_one_call(bench: Bench) -> None:
    for number in range(10):
        bench.submit(event(number))
    assert len(await bench.redis.call(0)) == 10
    bench.redis.answer(0)
    await bench.until(10)
    assert {one.outcome for one in bench.said.values()} == {Outcome.RECORDED}
    assert bench.lane.acked == {0: "1-1"}


async def test_each_caller_gets_its_own_answer(bench: Bench) -> None:
    events = [event(1, number) for number in range(2 * CALL_EVENTS)]
    for one in events:
        bench.submit(one)
    for number in range(2):
        await bench.redis.call(number)
        bench.redis.answer(number)
    await bench.until(len(events))
    assert all(bench.said[one.who].recorded_at == n for n, one in enumerate(events))


async def test_calls_are_bounded_in_size_and_number(bench: Bench) -> None:
    for number in range(4 * CALL_EVENTS):
        bench.submit(event(1, number))
    await bench.redis.call(CALLS - 1)
    assert [len(events) for events in bench.redis.calls] == [CALL_EVENTS] * CALLS
    bench.redis.answer(0)
    await bench.redis.call(CALLS)
    assert len(bench.redis.calls) == CALLS + 1


async def test_a_crowd_of_one_organisation_does_not_stand_before_another(bench: Bench) -> None:
    for number in range(8 * CALL_EVENTS):
        bench.submit(event(1, number))
    await bench.redis.call(CALLS - 1)
    other = event(2, 10**6)
    bench.submit(other)
    bench.redis.answer(0)
    for number in range(CALLS, CALLS + 3):  # gathered before, a turn of the crowd's, then this one
        calls = await bench.redis.call(number)
        bench.redis.answer(number - 1)
    assert other.usage_id in calls


async def test_a_few_wait_for_the_call_before_them_and_a_crowd_does_not(bench: Bench) -> None:
    bench.submit(event(1))
    await bench.redis.call(0)
    for number in range(CROWD - 1):
        bench.submit(event(2, number))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(bench.redis.calls) == 1
    bench.submit(event(2, CROWD))
    assert len(await bench.redis.call(1)) == CROWD


async def test_the_next_call_goes_out_before_anybody_is_answered(bench: Bench) -> None:
    """Redis does nothing meanwhile: what is done before it is waited for by all."""
    for number in range((CALLS + 1) * CALL_EVENTS):
        bench.submit(event(1, number))
    await bench.redis.call(CALLS - 1)
    bench.redis.answer(0)
    assert (len(bench.redis.calls), bench.said) == (CALLS + 1, {})


async def test_one_organisations_events_keep_their_order(bench: Bench) -> None:
    sent = [event(number % 3, number) for number in range(6 * CALL_EVENTS)]
    for one in sent:
        bench.submit(one)
    seen: list[bytes] = []
    number = 0
    while len(seen) < len(sent):
        seen += await bench.redis.call(number)
        bench.redis.answer(number)
        number += 1
    for tenant in range(3):
        mine = [one.usage_id for one in sent if one.who[:17] == event(tenant).who[:17]]
        assert [usage_id for usage_id in seen if usage_id in mine] == mine


async def test_nobody_waits_for_longer_than_there_is_a_use(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "WAIT_S", 0.0)
    monkeypatch.setattr(lanes, "SHED_S", 0.0)
    count = CALLS * CALL_EVENTS
    for number in range(count + 3 * CALL_EVENTS):
        bench.submit(event(1, number))
    await bench.redis.call(CALLS - 1)
    late = event(2)
    bench.submit(late)  # while all calls are under way
    await bench.until(3 * CALL_EVENTS + 1)
    refused = bench.said[late.who]
    assert isinstance(refused, Problem)
    assert refused.document()["outcome"] == "not_recorded"
    assert len(bench.redis.calls) == CALLS
    for number in range(CALLS):
        bench.redis.answer(number)
    await bench.until(count + 3 * CALL_EVENTS + 1)
    assert sum(isinstance(one, Answer) for one in bench.said.values()) == count
    bench.submit(event(3))  # and it goes on
    assert len(await bench.redis.call(CALLS)) == 1


async def test_what_this_process_takes_itself_is_not_held_against_those_who_wait(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst keeps the loop busy for longer than anybody may wait for Redis."""
    now = 0.0

    class Clock:
        def time(self) -> float:
            return now

        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio.get_running_loop(), name)

        def call_at(self, _: float, look: Callable[[], None]) -> None:
            looks.append(look)

    looks: list[Callable[[], None]] = []
    monkeypatch.setattr(bench.lane, "_loop", Clock())
    bench.submit(event(1))
    await bench.redis.call(0)
    bench.submit(event(2))  # waits; the first look at it is meant for SHED_S
    now = 10.0  # and comes much later
    looks.pop()()
    assert not bench.said
    now += lanes.WAIT_S + lanes.SHED_S
    looks.pop()()
    assert not bench.said
    for _ in range(20):  # punctual looks: Redis itself does not answer
        now += lanes.SHED_S
        if looks:
            looks.pop()()
    assert isinstance(bench.said[event(2).who], Problem)


async def test_a_burst_that_nothing_follows_is_refused_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "WAIT_S", 0.001)
    monkeypatch.setattr(lanes, "SHED_S", 0.001)
    for number in range((CALLS + 2) * CALL_EVENTS):
        bench.submit(event(1, number))
    await bench.until(2 * CALL_EVENTS)
    assert all(isinstance(one, Problem) for one in bench.said.values())


async def test_what_waits_is_bounded(bench: Bench) -> None:
    """And one organisation has half of the room at most, so that others find some."""
    under_way, half = (CALLS + 1) * CALL_EVENTS, WAITING_EVENTS // 2
    for number in range(CALLS * CALL_EVENTS):
        bench.submit(event(1, number))
    await bench.redis.call(CALLS - 1)
    for tenant in (1, 2):
        start = CALLS * CALL_EVENTS if tenant == 1 else 0
        stop = under_way + half if tenant == 1 else half
        for number in range(start, stop):
            bench.submit(event(tenant, number))
        assert not bench.said
        bench.submit(event(tenant, stop))
        assert isinstance(bench.said.pop(event(tenant, stop).who), Problem)
    bench.submit(event(3))
    assert isinstance(bench.said[event(3).who], Problem)


async def test_one_callers_own_trouble_takes_no_answer_from_the_others(bench: Bench) -> None:
    def broken(_: Any) -> None:
        raise OSError("cannot be written")

    for number in range(3):
        bench.submit(event(1, number))
        bench.lane.submit(event(2, number), broken)
    await bench.redis.call(0)
    bench.redis.answer(0)
    await bench.until(3)
    assert {one.outcome for one in bench.said.values()} == {Outcome.RECORDED}


async def test_a_call_that_cannot_be_sent_is_told_and_the_next_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("cannot be packed")

    with monkeypatch.context() as patch:
        patch.setattr(bench.redis, "send", broken)
        for number in range(3):
            bench.submit(event(1, number))
        await bench.until(3)
    assert all(isinstance(one, ValueError) for one in bench.said.values())
    bench.submit(event(2))
    await bench.redis.call(0)
    bench.redis.answer(0)
    await bench.until(4)


@pytest.mark.parametrize("unknown", [True, False])
async def test_an_error_is_told_to_everybody_in_the_call_and_to_nobody_else(
    bench: Bench, unknown: bool
) -> None:
    bench.submit(event(1))
    await bench.redis.call(0)
    bench.submit(event(2))
    bench.redis.answer(0, RedisUnavailable("gone", outcome_unknown=unknown))
    await bench.redis.call(1)
    bench.redis.answer(1)
    await bench.until(2)
    assert isinstance(bench.said[event(1).who], RedisUnavailable)
    assert isinstance(bench.said[event(2).who], Answer)


async def test_a_call_that_is_cancelled_leaves_nobody_waiting(bench: Bench) -> None:
    others = asyncio.all_tasks()
    bench.submit(event(1))
    await bench.redis.call(0)
    await asyncio.sleep(0)
    [task] = asyncio.all_tasks() - others
    task.cancel()
    await bench.until(1)
    given_up = bench.said[event(1).who]
    assert isinstance(given_up, RedisUnavailable)
    assert given_up.outcome_unknown
