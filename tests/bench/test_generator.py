"""Latency counts from when a request was meant to start, whatever held it up."""

from __future__ import annotations

from collections import deque
from itertools import repeat

import pytest

from bench.generator import SECOND_NS, AsFastAsPossible, FixedRate, Reply, Sample, run

MS = 1_000_000


class SlowServer:
    """Answers one request after the other, each in the time given for it; the clock is its own."""

    def __init__(self, *service_ns: int, lost: int | None = None) -> None:
        self.now = 12_345
        self._service = deque(service_ns)
        self._free_at = 0
        self._lost = lost
        self._due: deque[tuple[int, int, Reply | None]] = deque()
        self.sent_at: list[int] = []

    def clock(self) -> int:
        return self.now

    def send(self, wire: int, request: bytes) -> None:
        took = self._service.popleft() if len(self._service) > 1 else self._service[0]
        self._free_at = max(self._free_at, self.now) + took
        reply = None if len(self.sent_at) == self._lost else Reply(201)
        self._due.append((self._free_at, wire, reply))
        self.sent_at.append(self.now)

    def wait(self, timeout_ns: int) -> list[tuple[int, Reply | None]]:
        wake = self.now + timeout_ns
        if self._due and self._due[0][0] <= wake:
            at, wire, reply = self._due.popleft()
            self.now = max(self.now, at)
            return [(wire, reply)]
        self.now = wake
        return []

    def close(self) -> None:
        pass


def test_requests_of_a_fixed_rate_are_due_at_exact_instants() -> None:
    pacing = FixedRate(3, 2.0)
    starts = []
    while (start := pacing.next_start(0)) is not None:
        starts.append(start)
        pacing.taken()
    assert starts == [number * SECOND_NS // 3 for number in range(6)]


def test_a_server_in_time_is_sent_each_request_at_its_instant() -> None:
    server = SlowServer(2 * MS)
    sample = run(server, 4, repeat(b""), FixedRate(100, 0.05), server.clock)
    assert [at - 12_345 for at in server.sent_at] == [0, 10 * MS, 20 * MS, 30 * MS, 40 * MS]
    assert list(sample.latencies) == [2 * MS] * 5
    assert sample.seconds == pytest.approx(0.042)


@pytest.mark.parametrize("connections", [1, 50])
def test_waiting_counts_from_the_intended_start_with_any_number_of_connections(
    connections: int,
) -> None:
    # 1,000 requests a second to a server that can do 100: each waits for all before it.
    server = SlowServer(10 * MS)
    sample = run(server, connections, repeat(b""), FixedRate(1_000, 0.05), server.clock)
    assert list(sample.latencies) == [10 * MS * (n + 1) - n * MS for n in range(50)]


def test_one_stall_is_charged_to_everybody_it_held_up() -> None:
    server = SlowServer(100 * MS, 1 * MS)
    sample = run(server, 1, repeat(b""), FixedRate(100, 0.1), server.clock)
    assert list(sample.latencies) == [(100 + n - 10 * n) * MS for n in range(10)]
    closed = SlowServer(100 * MS, 1 * MS)
    omitted = run(closed, 1, repeat(b""), AsFastAsPossible(1, 10), closed.clock)
    assert sorted(omitted.latencies) == [1 * MS] * 9 + [100 * MS]


def test_a_closed_loop_ends_after_its_time_and_waits_for_the_last_answers() -> None:
    server = SlowServer(10 * MS)
    sample = run(server, 2, repeat(b""), AsFastAsPossible(0.1), server.clock)
    assert sample.statuses[201] == len(server.sent_at) == 11
    assert sample.unknown == 0


def test_a_lost_connection_is_an_unknown_outcome_and_no_answer() -> None:
    server = SlowServer(1 * MS, lost=3)
    sample = run(server, 2, repeat(b""), AsFastAsPossible(1, 10), server.clock)
    assert (sample.answers, sample.unknown, sample.recorded) == (9, 1, 9)


def test_a_server_that_falls_silent_is_given_up() -> None:
    server = SlowServer(1 * MS, 3600 * SECOND_NS)
    sample = run(server, 2, repeat(b""), AsFastAsPossible(1, 4), server.clock)
    assert (sample.answers, sample.unknown) == (1, 2)


def test_percentiles_are_those_of_the_latencies() -> None:
    sample = Sample()
    sample.latencies.extend(n * MS for n in range(1, 1_001))
    found = sample.histogram.percentiles_ms(50, 95, 99, 99.9, 100)
    assert found == pytest.approx([500, 950, 990, 999, 1000], rel=0.001)


def test_replays_and_refusals_are_not_recorded_events() -> None:
    sample = Sample()
    sample.statuses.update({201: 10, 429: 3, 200: 2})
    sample.replayed, sample.accepted, sample.seconds = 4, 200, 2.0
    assert sample.recorded == 206
    assert (sample.rate, sample.event_rate) == (6.0, 103.0)
