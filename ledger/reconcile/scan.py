"""Which quotas Redis holds, found a little at a time."""

from __future__ import annotations

import re
from collections import defaultdict

from lua.connection import RedisConnection

KEYS = 1000  # looked at by one command: a fraction of a millisecond of Redis' time
# Subjects of a partition that wait, a few MB: another ledger may look at it, and nobody take them.
WAITING = 50_000
_QUOTA = re.compile(r"quota:\{p(\d+)\}:(.+)")


class QuotaScan:
    """Goes round all keys; what it found waits until it is taken. What there is no room for is
    found again in a later round."""

    def __init__(self, redis: RedisConnection) -> None:
        self._redis = redis
        self._next = 0
        self._found: dict[int, set[str]] = defaultdict(set)

    async def step(self) -> bool:
        """Looks at some more keys; whether that ended a round."""
        said = await self._redis.run("SCAN", self._next, "MATCH", "quota:*", "COUNT", KEYS)
        for key in said[1]:
            if match := _QUOTA.fullmatch(key.decode()):
                waiting = self._found[int(match.group(1))]
                if len(waiting) < WAITING:
                    waiting.add(match.group(2))
        self._next = int(said[0])
        return self._next == 0

    def take(self, partition: int) -> set[str]:
        """Subjects of the partition that were found since it was last asked."""
        return self._found.pop(partition, set())
