"""The way to Redis: events that arrive in the same moment go there in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog

from gateway.fair import FairQueue
from gateway.problems import Problem, unavailable
from lua.connection import RedisUnavailable
from lua.keys import tenant_of
from lua.record_call import RecordCall
from lua.recorder import Recorder
from lua.types import Answer, Event, Recorded

log = structlog.get_logger()

CALL_EVENTS = 128  # events in one script call: Redis serves nobody else meanwhile (a few ms)
CALLS = 2  # under way at once: one is decided by Redis while the next is gathered here
CROWD = 12  # events that are worth a second call: for fewer, Redis's sync of its file costs more
WAITING_EVENTS = 10_000  # beyond it an early 503 beats a late answer; half of it for one tenant
WAIT_S = 0.25  # for a call to be made; later than this, an answer would be of no use
SHED_S = 0.05  # how often those who have waited too long are looked for

Done = Callable[[Answer | BaseException], None]
"""Told what became of an event."""


class _Waiting(msgspec.Struct, frozen=True, gc=False):
    event: Event
    done: Done
    since: float  # the loop's time less `_stalled_s`


class Lane:
    """Events on their way to one Redis server. A call takes all that came while the calls before
    it were under way, so that calls grow with the load instead of their number. What is more than
    the next call waits where organisations are served in turn, and nobody waits for longer than
    `WAIT_S`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._next: list[_Waiting] = []
        self._call = RecordCall()  # of the same events
        self._later: FairQueue[_Waiting] = FairQueue(CALL_EVENTS)
        self._calls = 0
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._shed_at = 0.0  # 0: nobody waits
        self._stalled_s = 0.0  # how long this process was too busy to look
        self._reading: set[asyncio.Task[None]] = set()
        self.closed = False  # Redis keeps too little: nothing may be recorded now
        self.acked: dict[int, str] = {}  # by partition: the last stream id answered for

    def apart(self, recorder: Recorder) -> Lane:
        """A lane beside this one, which knows what was answered here."""
        lane = Lane(recorder)
        lane.closed, lane.acked = self.closed, self.acked
        return lane

    def submit(self, event: Event, done: Done) -> None:
        """Sends the event at the end of this tick, or with a later call when Redis is busy; one
        of them calls `done`."""
        waiting = _Waiting(event, done, self._loop.time() - self._stalled_s)
        if len(self._next) < CALL_EVENTS and not self._later:
            self._call.add(event)
            self._next.append(waiting)
        elif self._has_room(tenant := tenant_of(event.who)):
            self._later.put(tenant, waiting)
        else:
            _tell(waiting, _late())
            return
        if not self._may_call():
            self._look_soon()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._start)

    def _has_room(self, tenant: bytes) -> bool:
        held = self._later.held(tenant)
        return len(self._later) < WAITING_EVENTS and held < WAITING_EVENTS // 2

    def _may_call(self) -> bool:
        return self._calls < (CALLS if len(self._next) >= CROWD else 1)

    def _start(self) -> None:
        self._scheduled = False
        while self._next and self._may_call():
            taken, call = self._next, self._call
            self._make_next(self._later.take(CALL_EVENTS) if self._later else [])
            self._calls += 1
            try:
                if self.closed:
                    raise _too_weak()
                reply = self._recorder.send(call, self._landed)
            except Exception as error:  # nothing was sent, and nothing will land
                self._calls -= 1
                for one in taken:
                    _tell(one, error)
                continue
            task = asyncio.ensure_future(self._answer(taken, reply))
            self._reading.add(task)  # the loop itself would let it be collected
            task.add_done_callback(self._reading.discard)
        if self._next:
            self._look_soon()

    def _make_next(self, events: list[_Waiting]) -> None:
        self._next = events
        self._call = RecordCall(one.event for one in events)

    def _landed(self) -> None:
        """A call has ended: the next goes out before anybody is answered."""
        self._calls -= 1
        self._start()

    async def _answer(self, taken: list[_Waiting], reply: Awaitable[Recorded]) -> None:
        answered = 0
        try:
            recorded = await reply
            self.acked |= recorded.last_ids
            for one, answer in zip(taken, recorded.answers, strict=True):
                answered += 1
                _tell(one, answer)
        except Exception as error:  # whatever it is, it is these callers' and nobody else's
            for one in taken[answered:]:
                answered += 1
                _tell(one, error)
        finally:
            for one in taken[answered:]:  # however this ended: nobody may wait for ever
                _tell(one, RedisUnavailable("the call was given up", outcome_unknown=True))

    def _look_soon(self) -> None:
        if self._shed_at:
            return
        self._shed_at = self._loop.time() + SHED_S
        self._loop.call_at(self._shed_at, self._shed)

    def _shed(self) -> None:
        """Refuses those who have waited too long: Redis is slow, or does not answer. What this
        process itself took, for a burst of requests, is not held against them."""
        now = self._loop.time()
        self._stalled_s += now - self._shed_at
        self._shed_at = 0.0
        oldest = now - self._stalled_s - WAIT_S
        late = [one for one in self._next if one.since < oldest]
        late += self._later.drop(lambda one: one.since < oldest)
        if late:
            kept = [one for one in self._next if one.since >= oldest]
            self._make_next(kept + self._later.take(CALL_EVENTS - len(kept)))
        if self._next:
            self._look_soon()
        for one in late:
            _tell(one, _late())


class Lanes:
    """The lane of each partition: one for all on one server, one for each on a cluster. `recorder`
    makes one for each lane."""

    def __init__(self, recorder: Callable[[], Recorder], partitions: int) -> None:
        self._recorder = recorder
        self.of = [Lane(recorder())] * partitions
        self.acked: Mapping[int, str] = self.of[0].acked  # of all lanes, as it changes

    def spread(self) -> None:
        """On a cluster a call holds the keys of one partition, and one server's trouble is not
        another's."""
        self.of = [lane.apart(self._recorder()) for lane in self.of]

    def close(self, closed: Callable[[int], bool]) -> None:
        """While its partition is closed, usage is refused before anything is sent."""
        for partition, lane in enumerate(self.of):
            lane.closed = closed(partition)


def _tell(one: _Waiting, said: Answer | BaseException) -> None:
    """One caller's own trouble must not take the others' answers from them."""
    try:
        one.done(said)
    except Exception:
        log.exception("answer_failed")


def _too_weak() -> Problem:
    return unavailable(
        "Redis keeps less than DURABILITY asks for, see /readyz; nothing was recorded"
    )


def _late() -> Problem:
    return unavailable("too many requests are waiting for Redis; nothing was recorded")
