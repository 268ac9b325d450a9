"""How fast the ledger turns stream entries into rows, and what a bare COPY of them takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from bench import cpus
from bench.processes import Process
from bench.rig import PARTITIONS, Rig
from lua import keys

_POLL_S = 0.02
_STALLED_S = 30.0
_COPY_ROWS = 5_000  # in one COPY, and one transaction
_TABLE = "bench_copy"


class DrainError(Exception):
    """The ledger does not drain; see its log."""


class Drained(msgspec.Struct, frozen=True):
    seconds: float  # from the first batch seen to the last entry
    cpu_s: float  # of the ledger in those seconds
    seen: int  # entries drained in those seconds

    @property
    def rate(self) -> float:
        """Entries per second, without the ledger's start."""
        return self.seen / self.seconds if self.seconds else 0.0


@asynccontextmanager
async def draining(rig: Rig) -> AsyncIterator[Process]:
    """A ledger at work, on the core of the gateway as a sidecar is."""
    ledger = rig.ledger(rig.plan.server)
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.stop()


async def drain(rig: Rig, ledger: Process) -> Drained:
    """Waits until a ledger that was just started has drained everything."""
    made, before = await rig.appended()
    first: tuple[float, int, float] | None = None
    moved, last = time.monotonic(), before
    while last < made:
        await asyncio.sleep(_POLL_S)
        now, (_, drained) = time.monotonic(), await rig.appended()
        if drained != last:
            moved, last = now, drained
            first = first or (now, drained, ledger.cpu_s)
        elif now - moved > _STALLED_S or not ledger.running:
            raise DrainError(f"{made - last} of {made - before} entries are left; see ledger.log")
    began, already, spent = first or (moved, last, ledger.cpu_s)
    return Drained(moved - began, ledger.cpu_s - spent, last - already)


async def drain_all(rig: Rig) -> None:
    """Leaves nothing undrained, and the ledger at rest."""
    async with draining(rig) as ledger:
        await drain(rig, ledger)


async def copy_rate(rig: Rig, rows: int) -> float:
    """Rows per second of COPY alone: the same rows into a table with the same columns and
    indexes, nothing else in the transaction. 0 when there are none."""
    found = await rig.sql.fetch("SELECT * FROM usage_records ORDER BY recorded_at LIMIT $1", rows)
    if not found:
        return 0.0
    await rig.sql.execute(f"DROP TABLE IF EXISTS {_TABLE}")
    await rig.sql.execute(f"CREATE TABLE {_TABLE} (LIKE usage_records INCLUDING ALL)")
    chunks = [found[at : at + _COPY_ROWS] for at in range(0, len(found), _COPY_ROWS)]
    with cpus.pinned(rig.plan.server):  # like the ledger, beside Postgres on the other core
        began = time.monotonic()
        for chunk in chunks:
            await rig.sql.copy_records_to_table(
                _TABLE, records=chunk, columns=list(chunk[0].keys())
            )
        seconds = time.monotonic() - began
    await rig.sql.execute(f"DROP TABLE {_TABLE}")
    return len(found) / seconds


async def entry_bytes(rig: Rig) -> float:
    """Memory of an undrained entry in the service's streams; 0 when there are none."""
    size = entries = 0
    for partition in range(PARTITIONS):
        name = keys.stream(partition)
        size += int(await rig.redis.run("MEMORY USAGE", name, "SAMPLES", 0) or 0)
        entries += int(await rig.redis.run("XLEN", name))
    return size / entries if entries else 0.0
