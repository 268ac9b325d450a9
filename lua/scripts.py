"""One typed method per script. The only place that knows the position of a key or argument."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha1
from typing import Any, Protocol

import msgspec

from lua import keys, loader

QUOTA_TTL_S = 24 * 3600  # the spec's TTL of a quota; refreshed whenever it is used


class NoScript(Exception):
    """The server does not know the script (it restarted, or SCRIPT FLUSH): load it again."""


class Connection(Protocol):
    """What the scripts need of a Redis client. Raises `NoScript` for a NOSCRIPT reply."""

    async def evalsha(self, sha: str, keys: Sequence[str], args: Sequence[Any]) -> Any: ...

    async def script_load(self, source: str) -> None: ...


class Outcome(enum.IntEnum):
    """What became of one usage event; the numbers are those of ``record.lua``."""

    RECORDED = 0
    REPLAYED = 1
    CONFLICT = 2
    DENIED = 3
    RATE_LIMITED = 4
    MISS = 5
    FULL = 6
    LOOK_UP = 7
    UNTIMELY = 8
    OVERFLOW = 9
    BLOCKED = 10
    FENCED = 11
    ALLOWED = 0  # what check.lua says where record.lua would record


class LookedUp(enum.IntEnum):
    """Whether the ledger was asked about an idempotency key Redis does not remember."""

    NOT_YET = 0
    UNKNOWN = 1
    UNREACHABLE = 2


class Missing(enum.IntFlag):
    """Which quota hashes must be loaded before the event can be decided."""

    NONE = 0
    USER = 1
    POOL = 2


class LoadOutcome(enum.IntEnum):
    LOADED = 0
    FENCED = 1
    RETRY = 2


class RecoveryOutcome(enum.IntEnum):
    """WHOLE: vouched for. LOST: a new epoch began. SUPERSEDED: this server belongs to a history
    that the ledger has left behind, or never knew."""

    WHOLE = 0
    LOST = 1
    SUPERSEDED = 2


class Event(msgspec.Struct, frozen=True):
    """One usage event as the record script takes it."""

    partition: int
    who: bytes
    usage_id: bytes
    fingerprint: bytes  # 8 bytes, or empty without idempotency key
    usage_type: str
    units: int
    occurred_at: int | None  # ms
    payload: bytes
    looked_up: LookedUp = LookedUp.NOT_YET


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """One event's answer; `starts`, `ends` and `recorded_at` in ms of the service's clock."""

    outcome: Outcome
    recorded_at: int = 0
    remaining: int | None = None
    exceeded: int = 0
    scope: int = 0
    limit: int = 0
    starts: int = 0
    ends: int = 0
    detail: Any = None


class CheckAnswer(msgspec.Struct, array_like=True, frozen=True):
    outcome: Outcome
    remaining: int | None = None
    scope: int = 0
    limit: int = 0
    starts: int = 0
    ends: int = 0
    detail: Any = None


class Fenced(Exception):
    """This Redis has not been vouched for since it last restarted: recovery must run first."""


class Recorded(msgspec.Struct, frozen=True):
    """Answers in the order of the events, and the last entry appended to each partition."""

    answers: list[Answer]
    last_ids: dict[int, str]


class Checked(msgspec.Struct, frozen=True):
    now: int
    answer: CheckAnswer


class QuotaHashes(msgspec.Struct, frozen=True):
    now: int
    missing: Missing
    user: dict[str, bytes]
    pool: dict[str, bytes]


class Limit(msgspec.Struct, frozen=True):
    """One usage type's rule and starting count in a quota hash (all in units)."""

    usage_type: str
    enforcement: str  # h, s, w, x or n, as include/verdict.lua explains
    limit: int | None  # None: unlimited
    rate_limit: int  # units; 0 for none
    rate_window_us: int
    used: int


class Tail(msgspec.Struct, frozen=True):
    replid: str
    epoch: int
    last_id: str
    entries: list[tuple[str, dict[str, bytes]]]


class Recovery(msgspec.Struct, frozen=True):
    outcome: RecoveryOutcome
    epoch: int
    replid: str
    last_id: str


class Scripts:
    """The scripts of one Redis connection, loaded on first use and after a restart."""

    def __init__(self, connection: Connection, includes: Mapping[str, str] | None = None) -> None:
        self._connection = connection
        self._scripts = {name: _Script(name, includes) for name in NAMES}

    async def record(self, events: Sequence[Event], *, enforce: bool, cap: int) -> Recorded:
        """Decides the events in order and records those admitted. Their partitions must be on
        this connection's server (in a cluster: in one slot)."""
        partitions: dict[int, int] = {}
        counters: dict[tuple[int, bytes, str], int] = {}
        args: list[Any] = ["", int(enforce), cap, QUOTA_TTL_S]
        for event in events:
            partition, who, usage_type = event.partition, event.who, event.usage_type
            pool = keys.pool_of(who)
            args += (
                partitions.setdefault(partition, len(partitions) + 1),
                counters.setdefault((partition, who, usage_type), len(counters) + 1),
                0
                if pool is None
                else counters.setdefault((partition, pool, usage_type), len(counters) + 1),
                who,
                event.usage_id,
                event.fingerprint,
                usage_type,
                event.units,
                "" if event.occurred_at is None else event.occurred_at,
                int(event.looked_up),
                event.payload,
            )
        args[0] = len(partitions)
        names: list[str] = []
        for partition in partitions:
            names += keys.of_partition(partition)
        names += [keys.quota(partition, subject) for partition, subject, _ in counters]
        last_ids, *answers = await self._run("record", names, args)
        return Recorded(
            msgspec.convert(answers, list[Answer]),
            {
                partition: last_id.decode()
                for partition, last_id in zip(partitions, last_ids, strict=True)
                if last_id
            },
        )

    async def check(
        self,
        partition: int,
        who: bytes,
        pool: bytes | None,
        *,
        enforce: bool,
        usage_type: str,
        units: int,
    ) -> Checked:
        """What `record` would say now; writes nothing. Raises `Fenced`."""
        names = _quota_names(partition, who, pool)
        reply = await self._run("check", names, [int(enforce), usage_type, units])
        if reply[0]:
            raise Fenced
        return Checked(reply[1], msgspec.convert(reply[2], CheckAnswer))

    async def quota(self, partition: int, who: bytes, pool: bytes | None) -> QuotaHashes:
        """The stored quota of a user and its pool. Raises `Fenced`."""
        names = _quota_names(partition, who, pool)
        fenced, now, missing, user, shared = await self._run("quota", names, [])
        if fenced:
            raise Fenced
        return QuotaHashes(now, Missing(missing), _fields(user), _fields(shared))

    async def load(
        self,
        partition: int,
        subject: bytes,
        *,
        epoch: int,
        version: int,
        starts: int,
        ends: int,
        cursor: str,
        through: str,
        terms: bytes,
        blocked: str,
        limits: Iterable[Limit],
    ) -> LoadOutcome:
        """Writes a subject's quota hash unless something newer has overtaken the snapshot."""
        args: list[Any] = [subject, epoch, version, starts, ends, cursor, through, terms, blocked]
        args.append(QUOTA_TTL_S)
        for one in limits:
            limit = "-" if one.limit is None else one.limit
            rate = f"{one.rate_limit} {one.rate_window_us}" if one.rate_limit else ""
            args += (one.usage_type, f"{one.enforcement}{limit}", rate, one.used)
        names = [
            keys.stream(partition),
            keys.meta(partition),
            keys.quota(partition, subject),
        ]
        return LoadOutcome(await self._run("load", names, args))

    async def read(self, partition: int, *, after: str, count: int) -> Tail:
        """Entries after an id, with the identity of the server. Raises `Fenced`."""
        names = [keys.stream(partition), keys.meta(partition)]
        fenced, replid, epoch, last_id, entries = await self._run("read", names, [after, count])
        if fenced:
            raise Fenced
        return Tail(
            replid.decode(),
            int(epoch),
            last_id.decode(),
            [(entry_id.decode(), _fields(flat)) for entry_id, flat in entries],
        )

    async def trim(self, partition: int, *, replid: str, drained: int, through: str) -> int:
        """Reports drained entries and removes those up to `through` (empty: none)."""
        names = [keys.stream(partition), keys.meta(partition)]
        return int(await self._run("trim", names, [replid, drained, through]))

    async def recover(
        self,
        partition: int,
        *,
        row_replid: str,
        epoch: int,
        cursor: str,
        drained: int,
        acked: str,
        offset: int,
    ) -> Recovery:
        """Vouches for the server, or begins a new epoch. Only while holding the cursor row."""
        names = [keys.stream(partition), keys.meta(partition)]
        args = [row_replid, epoch, cursor, drained, acked, offset]
        outcome, now_epoch, replid, last_id = await self._run("recover", names, args)
        return Recovery(RecoveryOutcome(outcome), int(now_epoch), replid.decode(), last_id.decode())

    async def _run(self, name: str, names: Sequence[str], args: Sequence[Any]) -> Any:
        script = self._scripts[name]
        try:
            return await self._connection.evalsha(script.sha, names, args)
        except NoScript:
            await self._connection.script_load(script.source)
            return await self._connection.evalsha(script.sha, names, args)


NAMES = ("record", "check", "quota", "load", "read", "trim", "recover")


class _Script:
    def __init__(self, name: str, includes: Mapping[str, str] | None) -> None:
        self.source = loader.source(name, includes)
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()


def _quota_names(partition: int, who: bytes, pool: bytes | None) -> list[str]:
    subjects = [who] if pool is None else [who, pool]
    return [keys.meta(partition), *(keys.quota(partition, subject) for subject in subjects)]


def _fields(flat: Sequence[bytes]) -> dict[str, bytes]:
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
