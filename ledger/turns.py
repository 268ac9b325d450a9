"""Connections for loads: never all that there are.

After a loss of Redis every account is cold. A partition that must be vouched for, and a key that
must be looked up, would wait behind the loads of all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ledger.db import ACQUIRE_S, Connection, Pool

SPARE = 2  # connections that loads leave to all else


class Turns:
    """The connections of a pool, of which loads take all but `SPARE`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._free = asyncio.Semaphore(max(1, pool.get_max_size() - SPARE))

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in one's turn. Raises `TimeoutError` when too many come before."""
        async with asyncio.timeout(ACQUIRE_S):
            await self._free.acquire()
        try:
            async with self._pool.acquire() as connection:
                yield connection
        finally:
            self._free.release()
