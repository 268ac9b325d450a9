"""How long is waited, how often is tried, and what an unanswered call means."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.client import BillingError, Conflict, Forbidden, QuotaExceeded, Retrying, Unavailable
from gateway.client.sending import Call, Sender
from gateway.client.transport import Answer, lost

GOOD = Answer(200, {"said": "yes"})
NOT_RECORDED = Answer(503, {"outcome": "not_recorded", "detail": "too far behind"})
UNKNOWN = Answer(503, {"outcome": "unknown", "detail": "no answer of Redis"})


class Waits:
    """A sleep that only takes notes."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


async def ask(
    *answers: Answer, key: str | None = "k", retrying: Retrying | None = None, chance: float = 1.0
) -> tuple[asyncio.Future[Any], Waits]:
    """One call that meets these answers, the last one for ever."""
    waits, left = Waits(), list(answers)
    sender = Sender(retrying or Retrying(), waits.sleep, lambda: chance)
    call = Call(lambda answer: answer.document["said"], sender.deadline(), key=key)

    async def send(calls: Sequence[Call[Any]], seconds: float) -> list[Answer]:
        assert list(calls) == [call]
        return [left.pop(0) if len(left) > 1 else left[0]]

    await sender.settle([call], send)
    return call.future, waits


async def test_pauses_double_up_to_the_longest_and_are_random() -> None:
    answers = [lost("x", sent=True)] * 8 + [GOOD]
    future, waits = await ask(*answers)
    assert future.result() == "yes"
    assert waits.pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    _, waits = await ask(*answers, chance=0.25)
    assert waits.pauses == [0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.5, 0.5]


async def test_the_service_is_given_the_pause_that_it_asks_for() -> None:
    future, waits = await ask(Answer(503, retry_after=3), Answer(500, retry_after=0), GOOD)
    assert future.result() == "yes"
    assert waits.pauses == [3, 0.1]


async def test_a_pause_that_would_end_after_the_deadline_is_not_waited_for() -> None:
    future, waits = await ask(Answer(503, retry_after=30), GOOD)
    with pytest.raises(Unavailable) as raised:
        future.result()
    assert (raised.value.retry_after, raised.value.status, waits.pauses) == (30, 503, [])


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 599])
async def test_what_may_pass_is_retried(status: int) -> None:
    future, waits = await ask(Answer(status), GOOD)
    assert (future.result(), len(waits.pauses)) == ("yes", 1)


async def test_what_comes_too_early_is_asked_again_until_the_deadline() -> None:
    early = Answer(409, {"detail": "it is on its way to the ledger"}, retry_after=1)
    future, waits = await ask(early, early, GOOD)
    assert (future.result(), waits.pauses) == ("yes", [1, 1])
    future, waits = await ask(early, retrying=Retrying(deadline_seconds=0.5))
    error = future.exception()
    assert isinstance(error, Conflict)
    assert (error.retry_after, error.outcome_unknown, waits.pauses) == (1, False, [])
    future, _ = await ask(UNKNOWN, early, retrying=Retrying(deadline_seconds=0.5))
    assert isinstance(error := future.exception(), Conflict)
    assert error.outcome_unknown


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 409, 413, 422, 429])
async def test_what_will_not_pass_is_not_retried(status: int) -> None:
    future, waits = await ask(Answer(status), GOOD)
    assert isinstance(future.exception(), BillingError)
    assert waits.pauses == []


@pytest.mark.parametrize(
    ("answers", "unknown"),
    [
        ([lost("connection refused", sent=False)], False),
        ([lost("reset", sent=True)], True),
        ([NOT_RECORDED], False),
        ([UNKNOWN], True),
        ([Answer(502)], True),
        ([Answer(408, {"type": "urn:billing:problem:timeout"})], False),
        ([Answer(408)], True),
        ([Answer(201, {})], True),
        ([UNKNOWN, NOT_RECORDED], True),
        ([NOT_RECORDED, lost("refused", sent=False)], False),
    ],
)
async def test_whether_it_may_have_been_recorded_is_told(
    answers: list[Answer], unknown: bool
) -> None:
    last = answers[-1]
    tries = [*answers[:-1], Answer(last.status, last.document, 1000, sent=last.sent)]
    future, _ = await ask(*tries)
    with pytest.raises(Unavailable) as raised:
        future.result()
    assert (raised.value.outcome_unknown, raised.value.key) == (unknown, "k")
    assert ("unknown" in str(raised.value)) == unknown


async def test_a_call_that_records_nothing_has_no_unknown_outcome() -> None:
    future, _ = await ask(Answer(502, retry_after=1000), key=None)
    error = future.exception()
    assert isinstance(error, Unavailable)
    assert (error.outcome_unknown, error.key) == (False, None)


async def test_a_refusal_after_a_lost_answer_still_says_that_it_may_be_recorded() -> None:
    future, _ = await ask(lost("reset", sent=True), Answer(403))
    error = future.exception()
    assert isinstance(error, Forbidden)
    assert error.outcome_unknown
    # The limits are asked only for a key that was not recorded.
    future, _ = await ask(
        lost("reset", sent=True), Answer(429, {"type": "urn:billing:problem:quota-exceeded"})
    )
    error = future.exception()
    assert isinstance(error, QuotaExceeded)
    assert not error.outcome_unknown


def test_a_deadline_must_be_some_time() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        Retrying(deadline_seconds=0)
