"""Is it alive, is it ready, and what is wrong: for orchestrators and people."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from gateway import metrics
from gateway.backlog import Backlog
from ledger import billing_state, clock, db, store
from ledger.audit import state as audit_state
from ledger.audit.state import Audit
from ledger.billing_state import Billing
from ledger.domain.durability import Profile
from ledger.durability import Watch
from ledger.reconcile import OVERDUE_S
from ledger.reconcile.findings import INVARIANTS
from lua import keys
from lua.cluster import ALONE, Cluster
from lua.connection import RedisUnavailable
from lua.multiplexer import Multiplexer
from lua.standing import floor, standing

LAGGING_ENTRIES = 50_000  # about what a ledger drains in two seconds
POSTGRES_PATIENCE_S = 1.0


T = TypeVar("T")


class Durability(msgspec.Struct, kw_only=True):
    """The durability profile that is set, and the one that Redis keeps."""

    wanted: str
    in_force: str


class StripeWaiting(msgspec.Struct, kw_only=True):
    """Invoices that are not in Stripe yet as they are here, and calls that wait for a person."""

    waiting: int
    parked: int


class Ready(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`status`: ready, degraded (usage is taken, but something needs care) or unready."""

    status: str
    redis: str
    postgres: str
    ledger_lag: int | None
    durability: Durability
    stripe: StripeWaiting | None = None
    reasons: list[str] = []


class _Partitions:
    """How the partitions in Redis are; one that is not served takes no usage."""

    def __init__(self) -> None:
        self.undrained: dict[int, int] = {}
        self.served: list[int] = []
        self.alone = False  # one server has them all
        self.fenced: list[int] = []
        self.silent: dict[tuple[str, str], list[int]] = defaultdict(list)  # by server and reason

    @property
    def usable(self) -> bool:
        """On one server all of them are vouched for, or soon will be; on a cluster a server that
        restarts must not take the gateway away from the others."""
        return bool(self.served) and not (self.alone and self.fenced)

    def reasons(self) -> Iterator[str]:
        if self.fenced:
            which = f": {_named(self.fenced)}" if self.served else ""
            yield f"redis has not been vouched for by the ledger yet{which}"
        for (server, reason), partitions in self.silent.items():
            yield f"redis {server}: {reason}; {_named(partitions)} take no usage"


class Probes:
    """`must_keep`: whether usage is taken only while Redis keeps the durability that is set."""

    def __init__(
        self,
        redis: Cluster[Multiplexer],
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
        self._unanswered: asyncio.Task[Ledger | None] | None = None

    async def ready(self) -> Ready:
        """Unready when no usage is taken; degraded without Postgres, since warm accounts go on."""
        reasons: list[str] = []
        unready = False
        lag: int | None = None
        in_force = Profile.UNKNOWN
        floors: dict[int, str] = {}
        undrained: Mapping[int, int] = {}
        try:
            look = await self._watch.look()  # first: it also says so when Redis is away
            floors = await self._floors()  # before the cursors, which run ahead of them
            partitions = await self._partitions_of_redis()
            undrained = partitions.undrained
            lag, in_force = sum(undrained.values()), look.verdict.in_force
            metrics.LAG.set(lag)
            reasons += [*partitions.reasons(), *look.verdict.reasons]
            reasons += self._backlog.reasons(undrained)
            below = self._must_keep and not any(one and one.kept for one in look.of.values())
            unready = not partitions.usable or look.verdict.stopped or below
        except RedisUnavailable as error:
            unready = True
            reasons.append(str(error))
        ledger = await self._ask_ledger()
        if ledger is None:
            reasons.append("postgres does not answer: only accounts already loaded are served")
        else:
            reasons += _reasons(ledger, floors)
            cursors = {row.partition: row.last_id for row in ledger.cursors}
            reasons += self._backlog.stalled(undrained, cursors, clock.monotonic())
        if lag is not None and lag > LAGGING_ENTRIES:
            reasons.append("the ledger is behind")
        return Ready(
            status="unready" if unready else "degraded" if reasons else "ready",
            redis="down" if lag is None else "up",
            postgres="down" if ledger is None else "up",
            ledger_lag=lag,
            durability=Durability(wanted=self._watch.wanted.profile.label, in_force=in_force.label),
            stripe=None if ledger is None else _stripe(ledger.billing),
            reasons=reasons,
        )

    async def _partitions_of_redis(self) -> _Partitions:
        """How the partitions are. Raises `RedisUnavailable` when none answers."""
        servers = await self._redis.primaries()
        infos = await asyncio.gather(
            *(one.run("INFO", "replication") for one in servers.values()), return_exceptions=True
        )
        replids = dict(zip(servers, map(_replid, infos), strict=True))
        found = _Partitions()
        found.alone = ALONE in servers
        for partition, said in (await self._each(standing)).items():
            name = self._redis.name_of(keys.stream(partition))
            if isinstance(said, RedisUnavailable):
                found.silent[name or "", str(said)].append(partition)
                continue
            found.undrained[partition] = said.undrained
            vouched = name is not None and said.replid == replids.get(name)
            (found.served if vouched else found.fenced).append(partition)
        return found

    async def _floors(self) -> dict[int, str]:
        """Of the partitions whose server answers."""
        said = await self._each(floor)
        return {one: end for one, end in said.items() if not isinstance(end, RedisUnavailable)}

    async def _each(
        self, ask: Callable[[Cluster[Multiplexer], int], Awaitable[T]]
    ) -> dict[int, T | RedisUnavailable]:
        """What each partition says. Raises `RedisUnavailable` when none does."""
        partitions = range(self._partitions)
        said = await asyncio.gather(
            *(ask(self._redis, one) for one in partitions), return_exceptions=True
        )
        found: dict[int, T | RedisUnavailable] = {}
        for partition, one in zip(partitions, said, strict=True):
            if isinstance(one, BaseException) and not isinstance(one, RedisUnavailable):
                raise one
            found[partition] = one
        silent = [one for one in found.values() if isinstance(one, RedisUnavailable)]
        if len(silent) == len(found):
            raise silent[0]
        return found

    async def _ask_ledger(self) -> Ledger | None:
        """None while Postgres does not answer. A question is left to itself, not cancelled: asyncpg
        waits for a frozen Postgres to confirm that, and a probe is not as patient."""
        if self._unanswered and not self._unanswered.done():
            return None
        asked = asyncio.ensure_future(self._read_ledger())
        await asyncio.wait({asked}, timeout=POSTGRES_PATIENCE_S)
        self._unanswered = asked
        return asked.result() if asked.done() else None

    async def _read_ledger(self) -> Ledger | None:
        try:
            found = await store.reconcile_findings(self._pool)
            ages = await store.reconcile_ages(self._pool)
            cursors = await store.cursors(self._pool)
            billing = await billing_state.look(self._pool)
            letters = await store.count_open_dead_letters(self._pool)
            audit = await audit_state.look(self._pool)
        except (*db.UNAVAILABLE, db.PostgresError):
            return None
        findings = {one.invariant: one.findings for one in found}
        for invariant in INVARIANTS:
            metrics.FINDINGS.labels(invariant).set(findings.get(invariant, 0))
        metrics.RECONCILE_AGE.set(max(ages.values(), default=0))
        metrics.billed(billing)
        metrics.evidenced(audit)
        metrics.DEAD_LETTERS.set(letters)
        return Ledger(sum(one.standing for one in found), ages, cursors, billing, letters, audit)


class Ledger(NamedTuple):
    """How much does not agree and was not repaired, how long ago each partition was last looked at
    to the end (in seconds), how far each is drained, how invoicing is going, how many entries could
    not be written, and how the audit trail is."""

    found: int
    ages: Mapping[int, int]
    cursors: Sequence[store.Cursor]
    billing: Billing
    letters: int
    audit: Audit


def _stripe(billing: Billing) -> StripeWaiting:
    return StripeWaiting(waiting=billing.stripe.waiting, parked=billing.stripe.parked)


def _named(partitions: Sequence[int]) -> str:
    return f"partitions {', '.join(map(str, partitions))}"


def _replid(info: Any) -> str | None:
    """None where the server did not answer."""
    found = re.search(rb"master_replid:([0-9a-f]+)", info) if isinstance(info, bytes) else None
    return found.group(1).decode() if found else None


def _reasons(ledger: Ledger, floors: Mapping[int, str]) -> Iterator[str]:
    """What the ledger says that needs care."""
    yield from ledger.billing.reasons()
    yield from ledger.audit.reasons()
    if ledger.letters:
        yield f"dead letters wait: {ledger.letters}; ./run dead-letters list"
    if ledger.found:
        yield f"reconcile found {ledger.found} disagreements: ./run reconcile lists them"
    overdue = [one for one, seconds in ledger.ages.items() if seconds > OVERDUE_S]
    if overdue:
        yield (
            f"reconcile has not compared {_named(overdue)} for more than "
            f"{OVERDUE_S // 60} minutes: the ledger's log says why"
        )
    behind = [(row, floors[row.partition]) for row in ledger.cursors if row.partition in floors]
    gaps = [str(row.partition) for row, end in behind if keys.before(row.last_id, end)]
    if gaps:
        yield (
            "the database was restored from before what redis still has, and usage in between "
            f"is missing: partitions {', '.join(gaps)} are not drained and load no quota"
        )
