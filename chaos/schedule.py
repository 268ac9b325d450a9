"""Which faults happen when: decided by the seed alone, before anything runs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

import msgspec

T = TypeVar("T")

PROGRAMS = ("worker", "gateway", "ledger-1", "ledger-2")
SERVERS = ("redis", "postgres")
LINKS = (
    "clients-gateway",
    "gateway-redis",
    "gateway-postgres",
    "ledger-redis",
    "ledger-postgres",
)

KINDS: dict[str, tuple[str, ...]] = {
    # of processes
    "kill": (*PROGRAMS, *SERVERS),  # SIGKILL; what was killed is started again
    "stop": (*PROGRAMS, *SERVERS),  # SIGSTOP, later SIGCONT
    "reload": ("gateway",),  # SIGHUP: the workers are replaced one by one
    "clock": ("gateway",),  # started again with a clock that is an hour ahead, later as before
    # of connections, in one of our relays
    "cut": LINKS,  # reset, and refused for a while
    "delay": LINKS,  # answers come 300 ms late
    "drop": LINKS,  # answers get lost, and their connections with them
    "stall": LINKS,  # nothing passes; then all of it does, as after a lost route
    "halfopen": LINKS,  # nothing passes; then the connections turn out to be dead
    # of Redis
    "flushall": ("redis",),
    "scriptflush": ("redis",),
    "expire": ("redis",),  # quotas go, as after a day without use
    "clientkill": ("redis",),
    "rewrite": ("redis",),  # its file is rewritten meanwhile
    "diskfull": ("redis",),  # its file cannot grow
    "powerloss": ("redis",),  # killed, and its file's end is cut where nobody was answered yet
    "torn": ("redis",),  # killed, and its file cut at any byte: a disk that lied
    "emptied": ("redis",),  # killed, and its file gone
    # of Postgres
    "terminate": ("postgres",),  # its sessions are ended
    "rewind": ("postgres",),  # it is again what it was up to 3 s before
}
_TIMES = {"kill": 3, "stop": 2}  # in each deal, where others come once: they have many targets
_AT_ONCE = {
    "reload", "flushall", "scriptflush", "expire", "clientkill", "rewrite", "powerloss", "torn",
    "terminate",
}  # fmt: skip
_TAKES_AWAY = {
    "kill", "stop", "cut", "stall", "halfopen", "flushall", "diskfull", "powerloss", "torn",
    "emptied",
}  # fmt: skip
FAULTS_PER_EPISODE = 6

# How long a fault lasts, in ms, and how often. Longer than every timeout: a reply (2 s), a lease of
# a partition (3 s), a recovery that waits for it (6 s).
_HOLDS = ((50, 1_200), (1_200, 3_000), (5_500, 7_500))
_HOLD_WEIGHTS = (75, 18, 7)
_GAP_MS = (100, 1_200)  # between the beginnings of two faults: shorter than most of them last


class Fault(msgspec.Struct, frozen=True):
    """One fault: what, to whom, when in its episode and for how long. `dice` seeds what is decided
    when it happens (which worker, which byte)."""

    kind: str
    target: str
    at_ms: int
    hold_ms: int
    dice: int

    @property
    def watched(self) -> bool:
        """Whether it is measured how soon all is well after it: every second one."""
        return self.dice % 2 == 0

    @property
    def of_redis(self) -> bool:
        """Whether the gateway is without Redis, or Redis without its keys."""
        return self.target in ("redis", "gateway-redis") and self.kind in _TAKES_AWAY

    @property
    def of_ledger(self) -> bool:
        return self.target.startswith("ledger-") and self.target in PROGRAMS

    def __str__(self) -> str:
        only = KINDS[self.kind] == (self.target,)
        return self.kind if only else f"{self.kind}:{self.target}"


class Episode(msgspec.Struct, frozen=True):
    """Faults under one load; `number` counts from 1."""

    number: int
    faults: tuple[Fault, ...]


Kinds = Mapping[str, Sequence[str]]
"""Kinds of faults, and the targets of each."""


def chosen(names: Sequence[str]) -> Kinds:
    """The kinds that are named, all their targets or the one after a colon. Raises `ValueError`
    with the name that there is not."""
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        kind, colon, target = name.partition(":")
        if kind not in KINDS or (colon and target not in KINDS[kind]):
            raise ValueError(name)
        found[kind] = (*found.get(kind, ()), target) if colon else KINDS[kind]
    return found


def episodes(seed: int, kinds: Kinds = KINDS, size: int = FAULTS_PER_EPISODE) -> Iterator[Episode]:
    """The endless schedule of a seed. All of `deal` comes before any of it comes again, and so do
    the targets of a kind."""
    dice = random.Random(f"chaos {seed}")
    dealt = _shuffled(deal(kinds), dice)
    targets = {kind: _shuffled(kinds[kind], dice) for kind in kinds}
    number = 0
    while True:
        number += 1
        at_ms = 0
        faults = []
        # First and alone, because a Redis that restarts twice, or loses its history, after the
        # moment that Postgres is put back to waits for an operator: here all mends itself.
        for kind in sorted(islice(dealt, size), key=lambda kind: kind != "rewind"):
            at_ms += dice.randint(*_GAP_MS)
            [range_ms] = dice.choices(_HOLDS, _HOLD_WEIGHTS)
            hold_ms = 0 if kind in _AT_ONCE else dice.randint(*range_ms)
            faults.append(Fault(kind, next(targets[kind]), at_ms, hold_ms, dice.getrandbits(32)))
            at_ms += hold_ms if kind == "rewind" else 0
        yield Episode(number, tuple(faults))


def deal(kinds: Kinds = KINDS) -> list[str]:
    """The kinds, each as often as it comes in one deal."""
    return [kind for kind in kinds for _ in range(_TIMES.get(kind, 1))]


def _shuffled(cards: Sequence[T], dice: random.Random) -> Iterator[T]:
    while True:
        yield from dice.sample(cards, len(cards))
