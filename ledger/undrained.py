"""Finds usage that is in a stream and no row yet: no index says so, and normally there is little.

When the ledger is behind there is much, and whoever asks for what is not there at all has all of
it read. So one looks at a time, without a connection to Postgres, and not for long.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from ledger import store
from ledger.db import Pool
from ledger.recovery import recover
from lua.scripts import Scripts
from lua.types import Fenced, Tail

LOOK = 100_000  # entries that are read at most: a second's work
PAGE = 500  # of them at a time: a gateway that takes them in answers nobody meanwhile
TURN_S = 2  # to wait for those who look for others


class NotDrained(Exception):
    """The record is not in the ledger yet, or perhaps not; the message says what it waits for."""


class Undrained:
    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._turn = asyncio.Lock()

    async def has(self, pool: Pool, usage_id: UUID) -> bool:
        """Whether its entry is in a stream and not drained. Raises `NotDrained` where that cannot
        be known soon, or as Redis does."""
        try:
            async with asyncio.timeout(TURN_S):
                await self._turn.acquire()
        except TimeoutError:
            raise NotDrained("others are being looked for") from None
        try:
            return await self._look(pool, usage_id)
        finally:
            self._turn.release()

    async def _look(self, pool: Pool, usage_id: UUID) -> bool:
        looked_at = 0
        for cursor in await store.cursors(pool):
            after = cursor.last_id
            while True:
                tail = await self._tail(pool, cursor.partition, after)
                if any(one.get("event", b"")[:16] == usage_id.bytes for _, one in tail.entries):
                    return True
                looked_at += len(tail.entries)
                if looked_at >= LOOK:
                    raise NotDrained("whether it was recorded is known when the ledger caught up")
                if len(tail.entries) < PAGE:
                    break
                after = tail.entries[-1][0]
        return False

    async def _tail(self, pool: Pool, partition: int, after: str) -> Tail:
        try:
            return await self._scripts.read(partition, after=after, count=PAGE)
        except Fenced:
            async with pool.acquire() as db:
                await recover(db, self._scripts, partition)
            return await self._scripts.read(partition, after=after, count=PAGE)
