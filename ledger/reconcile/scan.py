"""Which quotas Redis holds, found a little at a time."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Protocol

from lua.cluster import Server
from lua.connection import RedisUnavailable

KEYS = 1000  # looked at by one command: a fraction of a millisecond of Redis' time
# Subjects of a partition that wait, a few MB: another ledger may look at it, and nobody take them.
WAITING = 50_000
_QUOTA = re.compile(r"quota:\{p(\d+)\}:(.+)")


class Servers(Protocol):
    """Where the keys are; `lua.cluster.Cluster` is one."""

    async def primaries(self) -> Mapping[str, Server]: ...


class QuotaScan:
    """Goes round all keys of all servers; what it found waits until it is taken. What there is no
    room for is found again in a later round."""

    def __init__(self, redis: Servers) -> None:
        self._redis = redis
        self._left: list[Server] = []  # of this round
        self._alone = True
        self._next = 0
        self._found: dict[int, set[str]] = defaultdict(set)

    async def step(self) -> bool:
        """Looks at some more keys; whether that ended a round. Of a cluster, a server that does
        not answer is left out."""
        if not self._left:
            self._left = list((await self._redis.primaries()).values())
            self._alone = len(self._left) == 1
        try:
            said = await self._left[0].run("SCAN", self._next, "MATCH", "quota:*", "COUNT", KEYS)
        except RedisUnavailable:
            if self._alone:
                raise
            said = (0, [])
        for key in said[1]:
            if match := _QUOTA.fullmatch(key.decode()):
                waiting = self._found[int(match.group(1))]
                if len(waiting) < WAITING:
                    waiting.add(match.group(2))
        self._next = int(said[0])
        if self._next == 0:
            del self._left[0]
        return not self._left

    def take(self, partition: int) -> set[str]:
        """Subjects of the partition that were found since it was last asked."""
        return self._found.pop(partition, set())
