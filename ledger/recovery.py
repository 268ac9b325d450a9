"""Vouching for a Redis server: after a restart, a promotion, a loss.

The row of a partition names the server that the ledger believes. As long as it is not the one
that answers, every script says FENCED and writes nothing.
"""

from __future__ import annotations

import structlog

from ledger import store
from ledger.db import Connection
from lua.scripts import Scripts
from lua.types import Recovery, RecoveryOutcome

log = structlog.get_logger()


class Superseded(Exception):
    """This Redis holds a history that the ledger has left behind or never knew; nothing is
    accepted until an operator adopts it or points REDIS_URL or DATABASE_URL at the right one."""


async def recover(
    connection: Connection, scripts: Scripts, partition: int, acked: str = "0-0"
) -> Recovery:
    """Makes the partition usable again: believes the server if its history is whole, else begins
    a new epoch in which every quota is rebuilt. `acked` is the last stream id the caller has
    answered for. Safe to run any number of times. Raises `Superseded`."""
    async with connection.transaction():
        row = await store.hold_cursor(connection, partition)
        result = await scripts.recover(
            partition,
            row_replid=row.replid,
            epoch=row.epoch,
            cursor=row.last_id,
            drained=row.drained,
            acked=acked,
            offset=await store.clock_offset(connection),
        )
        if result.outcome is RecoveryOutcome.SUPERSEDED:
            log.error("redis_superseded", partition=partition)
            raise Superseded(f"partition {partition}: {Superseded.__doc__}")
        if (row.epoch, row.replid) != (result.epoch, result.replid):
            await store.vouch(connection, partition, result.epoch, result.replid)
    if result.outcome is RecoveryOutcome.LOST:
        log.error("redis_history_lost", partition=partition, epoch=result.epoch)
    else:
        log.debug("redis_vouched", partition=partition, epoch=result.epoch)
    return result
