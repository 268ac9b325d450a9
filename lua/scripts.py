"""One typed method per script: the positions of keys and arguments, but for those of record.lua,
which are in `lua.record_call`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha1
from typing import Any, Protocol

import msgspec

from lua import keys, loader
from lua.connection import NoScript
from lua.packing import NONE, pack_rule
from lua.record_call import QUOTA_TTL_S, RecordCall
from lua.types import (
    Answer,
    CheckAnswer,
    Checked,
    Event,
    Fenced,
    Limit,
    LoadOutcome,
    Missing,
    Outcome,
    QuotaHashes,
    Recorded,
    Recovery,
    RecoveryOutcome,
    SupersedeOutcome,
    Tail,
    Tally,
    TallyOutcome,
    UnloadOutcome,
)


class Connection(Protocol):
    """What the scripts need of a Redis client. Raises `NoScript` for a NOSCRIPT reply; `eval` sends
    the script itself, which the server then remembers."""

    async def evalsha(self, sha: str, keys: Sequence[str], args: Sequence[Any]) -> Any: ...

    async def eval(self, source: str, keys: Sequence[str], args: Sequence[Any]) -> Any: ...

    async def transaction(self, commands: Sequence[Sequence[Any]]) -> list[Any]: ...


class Scripts:
    """The scripts of one Redis connection, given to a server on first use and after a restart."""

    def __init__(self, connection: Connection, includes: Mapping[str, str] | None = None) -> None:
        self._connection = connection
        self._scripts = {name: _Script(name, includes) for name in NAMES}

    async def record(
        self, events: Sequence[Event], *, enforce: bool, cap: int, touch: bool = False
    ) -> Recorded:
        """Decides the events in order and records those admitted; on a cluster of one partition."""
        return await self.run_record(RecordCall(events), enforce=enforce, cap=cap, touch=touch)

    async def run_record(
        self, call: RecordCall, *, enforce: bool, cap: int, touch: bool = False
    ) -> Recorded:
        args = call.args(enforce, cap, touch)
        return call.read(await self._run("record", call.key_names(), args))

    @property
    def record_sha(self) -> str:
        return self._scripts["record"].sha

    @property
    def record_source(self) -> str:
        return self._scripts["record"].source

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
        revision: int,
        starts: int,
        ends: int,
        good_until: int,
        cursor: str,
        through: str,
        terms: bytes,
        blocked: str,
        pool_version: int,
        limits: Iterable[Limit],
    ) -> LoadOutcome:
        """Writes a subject's quota hash unless something newer has overtaken the snapshot."""
        args: list[Any] = [subject, epoch, version, revision, starts, ends, good_until]
        args += (cursor, through, terms, blocked, pool_version, QUOTA_TTL_S)
        for one in limits:
            rule = pack_rule(
                one.enforcement, one.limit, one.rate_limit, one.rate_window_us, one.rollover
            )
            args += (one.usage_type, rule, one.used)
        names = [
            keys.stream(partition),
            keys.meta(partition),
            keys.quota(partition, subject),
        ]
        return LoadOutcome(await self._run("load", names, args))

    async def unload(self, partition: int, subjects: Iterable[str], *, revision: int) -> None:
        """Has the quotas of these subjects (in words) loaded anew, from a snapshot that knows the
        revision. Raises `Fenced`; then a new epoch may come, which does the same."""
        names = [keys.meta(partition), *(keys.quota_named(partition, one) for one in subjects)]
        outcome = await self._run("unload", names, [revision, QUOTA_TTL_S])
        if outcome == UnloadOutcome.FENCED:
            raise Fenced

    async def correct(
        self,
        partition: int,
        who: bytes,
        pool: bytes | None,
        *,
        cap: int,
        said: bytes,
        units: int,
        starts: int,
        pool_starts: int,
        terms: bytes,
        period: int,
    ) -> Answer:
        """Records a correction; an outcome other than RECORDED or REPLAYED wrote nothing. Raises
        `Fenced`."""
        stream, *counters = keys.stream(partition), *_quota_names(partition, who, pool)
        names = [stream, counters[0], keys.receipts(partition), *counters[1:]]
        args = [cap, said, units, starts, pool_starts, terms, period]
        outcome, at, remaining, exceeded = await self._run("correct", names, args)
        if outcome == Outcome.FENCED:
            raise Fenced
        return Answer(Outcome(outcome), at, None if remaining == NONE else remaining, exceeded)

    async def supersede(
        self, partition: int, versions: Mapping[bytes, int], *, control: bytes, not_before: int = 0
    ) -> str | None:
        """Ends the terms of these subjects' quotas that are older than the version given for each,
        with an entry that says `control`; its stream id. None while the server's time is before
        `not_before` (ms). Raises `Fenced`."""
        names = [keys.stream(partition), keys.meta(partition)]
        names += [keys.quota(partition, subject) for subject in versions]
        args = [control, not_before, QUOTA_TTL_S, *versions.values()]
        outcome, last_id = await self._run("supersede", names, args)
        if outcome == SupersedeOutcome.FENCED:
            raise Fenced
        return None if outcome == SupersedeOutcome.EARLY else last_id.decode()

    async def tally(
        self, partition: int, quotas: Sequence[str], *, epoch: int, cursor: str, through: str
    ) -> Tally | None:
        """What these quota keys have counted, with the entries after `through`; None when another
        snapshot is needed. Raises `Fenced`."""
        names = [keys.stream(partition), keys.meta(partition), *quotas]
        outcome, tail, hashes = await self._run("tally", names, [epoch, cursor, through])
        if outcome == TallyOutcome.FENCED:
            raise Fenced
        if outcome == TallyOutcome.RETRY:
            return None
        return Tally(_entries(tail), [_fields(one) for one in hashes])

    async def read(self, partition: int, *, after: str, count: int) -> Tail:
        """Entries after an id, with the identity of the server; of a `count` of 0 nothing else.
        Raises `Fenced`."""
        names = [keys.stream(partition), keys.meta(partition)]
        # Not by the script itself: what passes through Lua costs Redis ten times as much.
        entries_after = ("XRANGE", names[0], f"({after}", "+", "COUNT", count)
        if count:
            said, entries = await self._run_beside("read", names, entries_after)
        else:
            said, entries = await self._run("read", names, []), []
        fenced, replid, epoch, floor, last_id = said
        if fenced:
            raise Fenced
        return Tail(
            replid.decode(),
            int(epoch),
            floor.decode(),
            last_id.decode(),
            _entries(entries),
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
        decided: bool = False,
    ) -> Recovery:
        """Vouches for the server, or begins a new epoch; always the latter when an operator has
        `decided` to go on from the cursor. Only while holding the cursor row."""
        names = [keys.stream(partition), keys.meta(partition)]
        args = [row_replid, epoch, cursor, drained, acked, offset, int(decided)]
        outcome, now_epoch, replid, last_id = await self._run("recover", names, args)
        return Recovery(RecoveryOutcome(outcome), int(now_epoch), replid.decode(), last_id.decode())

    async def _run(self, name: str, names: Sequence[str], args: Sequence[Any]) -> Any:
        script = self._scripts[name]
        try:
            return await self._connection.evalsha(script.sha, names, args)
        except NoScript:
            return await self._connection.eval(script.source, names, args)

    async def _run_beside(self, name: str, names: Sequence[str], command: Sequence[Any]) -> Any:
        """What a script without arguments and a command say, both of one instant."""
        script = self._scripts[name]
        try:
            return await self._connection.transaction(
                (("EVALSHA", script.sha, len(names), *names), command)
            )
        except NoScript:
            return await self._connection.transaction(
                (("EVAL", script.source, len(names), *names), command)
            )


NAMES = (
    "record",
    "check",
    "quota",
    "load",
    "unload",
    "correct",
    "supersede",
    "tally",
    "read",
    "trim",
    "recover",
)


class _Script:
    def __init__(self, name: str, includes: Mapping[str, str] | None) -> None:
        self.source = loader.source(name, includes)
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()


def _quota_names(partition: int, who: bytes, pool: bytes | None) -> list[str]:
    subjects = [who] if pool is None else [who, pool]
    return [keys.meta(partition), *(keys.quota(partition, subject) for subject in subjects)]


def _entries(tail: Sequence[Any]) -> list[tuple[str, dict[str, bytes]]]:
    return [(entry_id.decode(), _fields(flat)) for entry_id, flat in tail]


def _fields(flat: Sequence[bytes]) -> dict[str, bytes]:
    return {_name(flat[i]): flat[i + 1] for i in range(0, len(flat), 2)}


@lru_cache(maxsize=256)  # few and the same in every entry
def _name(raw: bytes) -> str:
    return raw.decode()
