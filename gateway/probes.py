"""Is it alive, is it ready, and what is wrong: for orchestrators and people."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import msgspec

from gateway import metrics
from ledger import db, store
from lua import keys
from lua.connection import RedisUnavailable
from lua.multiplexer import Multiplexer
from lua.standing import floor, standing

LAGGING_ENTRIES = 50_000  # about what a ledger drains in two seconds
POSTGRES_PATIENCE_S = 1.0


class Ready(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`status`: ready, degraded (usage is taken, but something needs care) or unready."""

    status: str
    redis: str
    postgres: str
    ledger_lag: int | None
    durability: dict[str, str]
    reasons: list[str] = []


class Probes:
    def __init__(self, redis: Multiplexer, pool: db.Pool, partitions: int) -> None:
        self._redis = redis
        self._pool = pool
        self._partitions = partitions

    async def ready(self) -> Ready:
        """Unready without Redis; degraded without Postgres, since warm accounts go on."""
        reasons: list[str] = []
        unready = False
        lag: int | None = None
        durability: dict[str, str] = {}
        floors: list[str] = []
        try:
            floors = await self._floors()  # before the cursors, which run ahead of them
            lag, vouched = await self._lag()
            durability = await self._durability()
            if not vouched:
                reasons.append("redis has not been vouched for by the ledger yet")
            unready = not vouched
        except RedisUnavailable as error:
            unready = True
            reasons.append(str(error))
        cursors = await self._cursors()
        if cursors is None:
            reasons.append("postgres does not answer: only accounts already loaded are served")
        elif gaps := _gaps(cursors, floors):
            reasons.append(
                "the database was restored from before what redis still has, and usage in between "
                f"is missing: partitions {gaps} are not drained and load no quota"
            )
        if lag is not None and lag > LAGGING_ENTRIES:
            reasons.append("the ledger is behind")
        problems = _weaknesses(durability)
        reasons += problems
        return Ready(
            status="unready" if unready else "degraded" if reasons else "ready",
            redis="down" if lag is None else "up",
            postgres="down" if cursors is None else "up",
            ledger_lag=lag,
            durability=durability,
            reasons=reasons,
        )

    async def _lag(self) -> tuple[int, bool]:
        """Undrained entries, and whether every partition vouches for the server that answers."""
        info = await self._redis.run("INFO", "replication")
        partitions = await asyncio.gather(
            *(standing(self._redis, one) for one in range(self._partitions))
        )
        lag = sum(one.undrained for one in partitions)
        metrics.LAG.set(lag)
        found = re.search(rb"master_replid:([0-9a-f]+)", info)
        replid = found.group(1).decode() if found else None
        return lag, all(one.replid == replid for one in partitions)

    async def _durability(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in ("appendonly", "appendfsync", "maxmemory-policy"):
            try:
                reply = await self._redis.run("CONFIG", "GET", name)
            except RedisUnavailable:
                continue  # managed servers do not let us ask; `_lag` has seen that it answers
            found |= {reply[i].decode(): reply[i + 1].decode() for i in range(0, len(reply), 2)}
        return found

    async def _floors(self) -> list[str]:
        return await asyncio.gather(*(floor(self._redis, one) for one in range(self._partitions)))

    async def _cursors(self) -> list[store.Cursor] | None:
        """How far each partition is drained; None while Postgres does not answer."""
        try:
            async with asyncio.timeout(POSTGRES_PATIENCE_S):
                return await store.cursors(self._pool)
        except (*db.UNAVAILABLE, db.PostgresError):
            return None


def _gaps(cursors: Sequence[store.Cursor], floors: Sequence[str]) -> str:
    """The partitions whose next entries were trimmed before this database had drained them."""
    behind = zip(cursors, floors, strict=False)  # no floors while Redis is down
    return ", ".join(str(row.partition) for row, end in behind if keys.before(row.last_id, end))


def _weaknesses(durability: dict[str, str]) -> list[str]:
    """What a crash could cost under this Redis configuration, in words."""
    found = []
    if durability.get("appendonly", "yes") != "yes":
        found.append("redis appendonly is off: a restart of Redis loses undrained usage")
    elif durability.get("appendfsync", "always") != "always":
        found.append("redis appendfsync is not always: a power loss may lose the last 2 seconds")
    if durability.get("maxmemory-policy", "noeviction") != "noeviction":
        found.append("redis may evict recorded usage: set maxmemory-policy noeviction")
    return found
