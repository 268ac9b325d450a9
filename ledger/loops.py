"""Runs the ledger's work for ever, through outages of Redis and Postgres."""

from __future__ import annotations

import asyncio

import structlog

from ledger import db, store
from ledger.drain import Drain
from ledger.settings import Settings
from lua.connection import RedisConnection, RedisUnavailable
from lua.scripts import Scripts

log = structlog.get_logger()

IDLE_S = 0.1  # how stale a read of the ledger may be when nothing is wrong
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 2.0  # after an outage: quick to return, easy on a sick server


class PartitionsChanged(Exception):
    """PARTITIONS differs from what this database was made with; accounts would change streams."""


async def check_partitions(connection: db.Executor, partitions: int, *, fix: bool = True) -> None:
    """Fixes the number of partitions at first start; raises `PartitionsChanged` ever after."""
    existing = await store.count_cursors(connection)
    if existing == 0 and fix:
        existing = await store.ensure_cursors(connection, partitions)
    if existing not in (0, partitions):
        raise PartitionsChanged(
            f"PARTITIONS: is {partitions}, but this database was made with {existing}; "
            f"set PARTITIONS={existing}"
        )


async def drain_for_ever(settings: Settings, stop: asyncio.Event) -> None:
    """Drains all partitions until `stop`. Outages are waited out: nothing is lost meanwhile,
    entries stay in the stream."""
    redis = RedisConnection(settings.redis_url)
    scripts = Scripts(redis)
    pause = FIRST_PAUSE_S
    try:
        while not stop.is_set():
            try:
                connection = await db.connect(settings.database_url)
                try:
                    drain = Drain(connection, scripts, settings.stream_retention_seconds)
                    while not stop.is_set():
                        drained = await drain.run_once(range(settings.partitions))
                        pause = FIRST_PAUSE_S
                        if not drained:
                            await _rest(stop, IDLE_S)
                finally:
                    await connection.close(timeout=1)
            except (*db.UNAVAILABLE, db.PostgresError, RedisUnavailable) as error:
                log.warning("drain_waiting", reason=f"{type(error).__name__}: {error}")
            except Exception:
                # Whatever it is, nothing is lost by trying again; ending would help nobody.
                log.exception("drain_failed")
            else:
                continue
            await _rest(stop, pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
    finally:
        await redis.close()


async def _rest(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
