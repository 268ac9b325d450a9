"""The service's time: the real one, and with TEST_CLOCK as far ahead of it as it was moved.

Redis has the same offset in each partition's `meta`; recovery writes it there.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from ledger import clock, store
from ledger.db import Connection, Executor
from ledger.recovery import recover
from lua.scripts import Scripts


class BehindTime(Exception):
    """The service's time never goes back."""


async def now(db: Executor) -> datetime:
    return clock.now() + timedelta(milliseconds=await store.clock_offset(db))


async def advance(db: Connection, scripts: Scripts, partitions: int, to: datetime) -> None:
    """Moves the time forward, here and in Redis. Raises `BehindTime`."""
    offset = (to - clock.now()) // timedelta(milliseconds=1)
    if not await store.advance_clock(db, offset):
        raise BehindTime
    for partition in range(partitions):
        await recover(db, scripts, partition)
