"""Is it alive, is it ready, and what is wrong: for orchestrators and people."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence

import msgspec

from gateway import metrics
from gateway.backlog import Backlog
from ledger import db, store
from ledger.domain.durability import Profile
from ledger.durability import Watch
from ledger.reconcile.findings import INVARIANTS
from lua import keys
from lua.connection import RedisUnavailable
from lua.multiplexer import Multiplexer
from lua.standing import floor, standing

LAGGING_ENTRIES = 50_000  # about what a ledger drains in two seconds
POSTGRES_PATIENCE_S = 1.0


class Durability(msgspec.Struct, kw_only=True):
    """The durability profile that is set, and the one that Redis keeps."""

    wanted: str
    in_force: str


class Ready(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`status`: ready, degraded (usage is taken, but something needs care) or unready."""

    status: str
    redis: str
    postgres: str
    ledger_lag: int | None
    durability: Durability
    reasons: list[str] = []


class Probes:
    """`must_keep`: whether usage is taken only while Redis keeps the durability that is set."""

    def __init__(
        self,
        redis: Multiplexer,
        pool: db.Pool,
        partitions: int,
        watch: Watch,
        backlog: Backlog,
        *,
        must_keep: bool,
    ) -> None:
        self._redis = redis
        self._pool = pool
        self._partitions = partitions
        self._watch = watch
        self._backlog = backlog
        self._must_keep = must_keep

    async def ready(self) -> Ready:
        """Unready when no usage is taken; degraded without Postgres, since warm accounts go on."""
        reasons: list[str] = []
        unready = False
        lag: int | None = None
        in_force = Profile.UNKNOWN
        floors: list[str] = []
        try:
            verdict = await self._watch.look()  # first: it also says so when Redis is away
            floors = await self._floors()  # before the cursors, which run ahead of them
            undrained, vouched = await self._undrained()
            lag = sum(undrained.values())
            metrics.LAG.set(lag)
            in_force = verdict.in_force
            if not vouched:
                reasons.append("redis has not been vouched for by the ledger yet")
            reasons += [*verdict.reasons, *self._backlog.reasons(undrained)]
            below = self._must_keep and not verdict.kept
            unready = not vouched or verdict.stopped or below
        except RedisUnavailable as error:
            unready = True
            reasons.append(str(error))
        ledger = await self._ask_ledger()
        if ledger is None:
            reasons.append("postgres does not answer: only accounts already loaded are served")
        else:
            reasons += _reasons(*ledger, floors)
        if lag is not None and lag > LAGGING_ENTRIES:
            reasons.append("the ledger is behind")
        return Ready(
            status="unready" if unready else "degraded" if reasons else "ready",
            redis="down" if lag is None else "up",
            postgres="down" if ledger is None else "up",
            ledger_lag=lag,
            durability=Durability(wanted=self._watch.wanted.profile.label, in_force=in_force.label),
            reasons=reasons,
        )

    async def _undrained(self) -> tuple[dict[int, int], bool]:
        """Undrained entries of each partition, and whether every one vouches for the server that
        answers."""
        info = await self._redis.run("INFO", "replication")
        partitions = await asyncio.gather(
            *(standing(self._redis, one) for one in range(self._partitions))
        )
        undrained = {number: one.undrained for number, one in enumerate(partitions)}
        found = re.search(rb"master_replid:([0-9a-f]+)", info)
        replid = found.group(1).decode() if found else None
        return undrained, all(one.replid == replid for one in partitions)

    async def _floors(self) -> list[str]:
        return await asyncio.gather(*(floor(self._redis, one) for one in range(self._partitions)))

    async def _ask_ledger(self) -> tuple[int, list[store.Cursor]] | None:
        """How much does not agree and was not repaired, as the ledger last saw it, and how far each
        partition is drained; None while Postgres does not answer."""
        try:
            async with asyncio.timeout(POSTGRES_PATIENCE_S):
                found = await store.reconcile_findings(self._pool)
                cursors = await store.cursors(self._pool)
        except (*db.UNAVAILABLE, db.PostgresError):
            return None
        findings = {one.invariant: one.findings for one in found}
        for invariant in INVARIANTS:
            metrics.FINDINGS.labels(invariant).set(findings.get(invariant, 0))
        return sum(one.standing for one in found), cursors


def _reasons(found: int, cursors: Sequence[store.Cursor], floors: Sequence[str]) -> Iterator[str]:
    """What the ledger says that needs care."""
    if found:
        yield f"reconcile found {found} disagreements: ./run reconcile lists them"
    behind = zip(cursors, floors, strict=False)  # no floors while Redis is down
    gaps = [str(row.partition) for row, end in behind if keys.before(row.last_id, end)]
    if gaps:
        yield (
            "the database was restored from before what redis still has, and usage in between "
            f"is missing: partitions {', '.join(gaps)} are not drained and load no quota"
        )
