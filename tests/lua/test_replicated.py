"""What counts as synced: the primary and as many replicas as are asked for, in the last answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lua.connection import RedisUnavailable
from lua.packing import ANSWER, NONE
from lua.record_call import RecordCall
from lua.replicated import ReplicatedRecorder
from lua.scripts import Scripts
from lua.types import Outcome
from tests.lua.kit import event

LATE = [1, 0]  # asked before anything could have been synced


class Redis:
    """Answers a call of one event with an outcome, and what was waited for with this."""

    def __init__(self, outcome: Outcome, waited: Any) -> None:
        self._outcome, self._waited = outcome, waited

    def of(self, key: str) -> Redis:
        return self

    def doubt(self) -> None: ...

    async def send_all(
        self, commands: Sequence[Sequence[Any]], landed: Callable[[], None]
    ) -> list[Any]:
        landed()
        said = [[b"1-1"], ANSWER.pack(self._outcome, 5, NONE, 0, 0, 0, 0, 0)]
        return [said, *([LATE] * (len(commands) - 2)), self._waited]


async def outcome(said: Outcome, waited: Any) -> str:
    redis: Any = Redis(said, waited)
    recorder = ReplicatedRecorder(redis, Scripts(redis), enforce=True, cap=10, replicas=2)
    try:
        recorded = await recorder.send(RecordCall([event(key="k")]), lambda: None)
    except RedisUnavailable as error:
        return f"unknown {error.outcome_unknown}"
    return recorded.answers[0].outcome.name


@pytest.mark.parametrize("yes", [Outcome.RECORDED, Outcome.REPLAYED])
@pytest.mark.parametrize(
    ("waited", "enough"),
    [
        ([1, 2], True),
        ([1, 3], True),
        ([1, 1], False),
        ([0, 2], False),
        (RedisUnavailable("its file is off", outcome_unknown=False), False),
        (RedisUnavailable("lost", outcome_unknown=True), False),
    ],
)
async def test_a_yes_needs_all_of_them(yes: Outcome, waited: Any, enough: bool) -> None:
    assert await outcome(yes, waited) == (yes.name if enough else "unknown True")


@pytest.mark.parametrize("no", [Outcome.DENIED, Outcome.MISS, Outcome.FENCED])
async def test_a_no_needs_none(no: Outcome) -> None:
    assert await outcome(no, LATE) == no.name
