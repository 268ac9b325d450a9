"""Which core does what, and what a process has used of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

_TICKS = os.sysconf("SC_CLK_TCK")

Cores = frozenset[int]


class Plan(msgspec.Struct, frozen=True):
    """`server` runs the process under test; `load` runs Redis, Postgres and the generator."""

    server: Cores
    load: Cores
    every: Cores

    @property
    def text(self) -> str:
        if not self.every:
            return "not pinned: this platform cannot"
        if self.server == self.load:
            return "one core for everything: the figures say little"
        return (
            f"server on core {_list(self.server)}; Redis and generator on core {_list(self.load)}"
        )


def plan() -> Plan:
    """The first core for the server and the second for the rest, of those we may use."""
    if sys.platform != "linux":
        return Plan(frozenset(), frozenset(), frozenset())
    cores = sorted(os.sched_getaffinity(0))
    return Plan(frozenset(cores[:1]), frozenset(cores[1:2] or cores), frozenset(cores))


@contextmanager
def pinned(cores: Cores) -> Iterator[None]:
    """This thread, and what it starts meanwhile, runs on these cores only."""
    if sys.platform != "linux" or not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """User and system seconds of a process and its living children (Linux; elsewhere 0)."""
    ticks = 0
    for one in _family(pid):
        # The name in brackets may hold blanks; utime and stime are fields 14 and 15.
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def resident_bytes(pid: int) -> int:
    """Memory of the largest process among this one and its children (Linux; elsewhere 0)."""
    largest = 0
    for one in _family(pid):
        for line in Path(f"/proc/{one}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                largest = max(largest, int(line.split()[1]) * 1024)
    return largest


def _family(pid: int) -> Iterator[int]:
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.exists():
        return
    yield pid
    for children in tasks.glob("*/children"):
        for child in children.read_text().split():
            yield from _family(int(child))


def _list(cores: Cores) -> str:
    return ", ".join(map(str, sorted(cores)))
