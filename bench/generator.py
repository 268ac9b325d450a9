"""Sends requests and times the answers, without coordinated omission.

At a fixed rate, request number n is meant to start at n / rate, whatever became of those before
it, and its latency counts from that instant: a server (or a generator) that stalls is charged for
everybody who had to wait, not only for the one request it stalled on.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec

from bench.histogram import Histogram

SECOND_NS = 1_000_000_000
_GIVE_UP_NS = 10 * SECOND_NS  # for the last answers


class Reply(msgspec.Struct, frozen=True):
    """One answer: `accepted` is the number of records a batch says it took."""

    status: int
    replayed: bool = False
    accepted: int = 0


class Wires(Protocol):
    """Connections by number, each carrying one request at a time. `None` for a reply: the
    connection was lost, and what became of its request is not known."""

    def send(self, wire: int, request: bytes) -> None: ...

    def wait(self, timeout_ns: int) -> Sequence[tuple[int, Reply | None]]: ...

    def close(self) -> None: ...


class Pacing(Protocol):
    """When requests are meant to start, in ns since the beginning."""

    def next_start(self, now_ns: int) -> int | None:
        """When the next request is meant to start; None when there are no more."""

    def taken(self) -> None:
        """That request is sent."""


class FixedRate:
    """An open loop: `rate` requests a second for so many seconds."""

    def __init__(self, rate: int, seconds: float) -> None:
        self._rate = rate
        self._count = round(rate * seconds)
        self._number = 0

    def next_start(self, now_ns: int) -> int | None:
        if self._number == self._count:
            return None
        return self._number * SECOND_NS // self._rate

    def taken(self) -> None:
        self._number += 1


class AsFastAsPossible:
    """A closed loop: a connection's next request starts when its last one is answered."""

    def __init__(self, seconds: float, count: int | None = None) -> None:
        self._ends_ns = round(seconds * SECOND_NS)
        self._left = count

    def next_start(self, now_ns: int) -> int | None:
        return None if now_ns >= self._ends_ns or self._left == 0 else now_ns

    def taken(self) -> None:
        if self._left is not None:
            self._left -= 1


class Sample:
    """What came of one load; latencies in ns."""

    def __init__(self) -> None:
        self.seconds = 0.0  # from the first intended start to the last answer
        self.statuses: Counter[int] = Counter()
        self.replayed = 0
        self.accepted = 0  # records of batches
        self.unknown = 0  # sent, and never answered
        self.latencies = array("q")
        self.refusals = array("q")  # those of the answers 503
        self.cpu_s: float | None = None  # of the server meanwhile

    @property
    def answers(self) -> int:
        return self.statuses.total()

    @property
    def recorded(self) -> int:
        """Usage events that were accepted and not replayed."""
        return self.statuses[201] - self.replayed + self.accepted

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return (self.statuses[200] + self.statuses[201]) / self.seconds if self.seconds else 0.0

    @property
    def event_rate(self) -> float:
        """Recorded usage events per second."""
        return self.recorded / self.seconds if self.seconds else 0.0

    @property
    def histogram(self) -> Histogram:
        return Histogram(self.latencies)


def run(
    wires: Wires,
    connections: int,
    requests: Iterator[bytes],
    pacing: Pacing,
    clock: Callable[[], int] = time.monotonic_ns,
) -> Sample:
    """Sends until the pacing ends, then waits for the answers still to come."""
    sample = Sample()
    idle = list(range(connections))
    intended = [0] * connections
    busy = 0
    began = clock()
    latest = 0
    while True:
        now = clock() - began
        start = pacing.next_start(now)
        while idle and start is not None and start <= now:
            wire = idle.pop()
            intended[wire] = start
            wires.send(wire, next(requests))
            busy += 1
            latest = now
            pacing.taken()
            now = clock() - began
            start = pacing.next_start(now)
        if busy == 0 and start is None:
            break
        if now - latest > _GIVE_UP_NS:
            sample.unknown += busy
            break
        pause = start - now if idle and start is not None else SECOND_NS
        for wire, reply in wires.wait(max(pause, 0)):
            busy -= 1
            idle.append(wire)
            if reply is None:
                sample.unknown += 1
                continue
            latency = clock() - began - intended[wire]
            (sample.refusals if reply.status == 503 else sample.latencies).append(latency)
            sample.statuses[reply.status] += 1
            sample.replayed += reply.replayed
            sample.accepted += reply.accepted
    sample.seconds = (clock() - began) / SECOND_NS
    return sample
