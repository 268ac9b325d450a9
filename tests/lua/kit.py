"""A partition on a real server, loaded without a ledger, for tests of the scripts alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Protocol
from uuid import UUID, uuid5

from lua import keys
from lua.keys import Account
from lua.scripts import Scripts
from lua.standing import Standing, standing
from lua.types import (
    CheckAnswer,
    Event,
    Fenced,
    Limit,
    LoadOutcome,
    LookedUp,
    Outcome,
    Recorded,
    Recovery,
)
from tests.entries import entry_in_words, quota_in_words

PARTITION = 3
CAP = 1_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOON_MS = 1_773_144_000_000  # 2026-03-10 12:00 UTC; receipts' days begin at midnight
TERMS = b"terms"
MARKER = ""  # the field of a hash of receipts that is none

_NAMES = UUID("00000000-0000-4000-8000-000000000000")
USER = Account(uuid5(_NAMES, "user")).who
ORG = uuid5(_NAMES, "organization")
MEMBER = Account(uuid5(_NAMES, "member"), ORG).who
OTHER_MEMBER = Account(uuid5(_NAMES, "other member"), ORG).who
POOL = MEMBER[:17]


class Server(Protocol):
    """What the bench needs of a Redis: scripts, and plain commands to look behind them."""

    async def evalsha(self, sha: str, keys: Sequence[str], args: Sequence[Any]) -> Any: ...

    async def eval(self, source: str, keys: Sequence[str], args: Sequence[Any]) -> Any: ...

    async def transaction(self, commands: Sequence[Sequence[Any]]) -> list[Any]: ...

    async def run(self, *command: Any) -> Any: ...


def usage_id(name: str) -> bytes:
    return uuid5(_NAMES, name).bytes


def limit(
    usage_type: str = "calls",
    enforcement: str = "h",
    most: int | None = 10,
    *,
    rate: int = 0,
    window_s: int = 0,
    used: int = 0,
) -> Limit:
    return Limit(usage_type, enforcement, most, rate, window_s * 1_000_000, used)


_unkeyed = iter(range(1 << 60))


def event(
    units: int = 1,
    *,
    who: bytes = USER,
    key: str | None = None,
    body: bytes = b"samebody",
    usage_type: str = "calls",
    occurred_at: int | None = None,
    looked_up: LookedUp = LookedUp.NOT_YET,
    payload: bytes = b"payload",
    partition: int = PARTITION,
) -> Event:
    """An event of this idempotency key, or of none; the same `body` is the same request."""
    name = f"unkeyed {next(_unkeyed)}" if key is None else f"key {key}"
    fingerprint = b"" if key is None else body
    return Event(
        partition,
        who,
        usage_id(name),
        fingerprint,
        usage_type,
        units,
        occurred_at,
        payload,
        looked_up,
    )


def still_clock() -> dict[str, str]:
    """The fence include with a clock that moves only when a test says so: microseconds in the
    `clock` fields of meta instead of the server's TIME. All else is the shipped text."""
    text = files("lua").joinpath("include/fence.lua").read_text(encoding="utf-8")
    assert text.count("redis.call('TIME')") == 1
    still = "redis.call('HMGET', meta_key, 'clock_s', 'clock_us')"
    return {"fence": text.replace("redis.call('TIME')", still)}


class Bench:
    """One partition. With `now_us` its clock stands still until `move`d."""

    def __init__(
        self,
        server: Server,
        now_us: int | None = None,
        partition: int = PARTITION,
    ) -> None:
        self.server = server
        self.partition = partition
        self.now_us = now_us
        self.scripts = Scripts(server, None if now_us is None else still_clock())
        self.meta_key = keys.meta(partition)
        self.stream_key = keys.stream(partition)

    async def vouch(self, **said: Any) -> Recovery:
        """Recovers the partition, by default as a new one."""
        new: dict[str, Any] = {
            "row_replid": "", "epoch": 1, "cursor": "0-0", "drained": 0, "acked": "0-0", "offset": 0
        }  # fmt: skip
        recovery = await self.scripts.recover(self.partition, **(new | said))
        await self.move(0)
        return recovery

    async def move(self, us: int = 0, *, ms: int = 0, hours: int = 0) -> None:
        """Moves the still clock."""
        if self.now_us is not None:
            self.now_us += us + ms * 1000 + hours * HOUR_MS * 1000
            seconds, micros = divmod(self.now_us, 1_000_000)
            await self.hset(self.meta_key, clock_s=seconds, clock_us=micros)

    async def now(self) -> int:
        """The scripts' time in ms."""
        if self.now_us is not None:
            return self.now_us // 1000
        seconds, micros = await self.server.run("TIME")
        offset = await self.server.run("HGET", self.meta_key, "offset")
        return int(seconds) * 1000 + int(micros) // 1000 + int(offset or 0)

    async def load(self, subject: bytes, *limits: Limit, **said: Any) -> LoadOutcome:
        """Loads a quota whose period began and ends forty days from now, unless said otherwise."""
        around = await self.now() // DAY_MS * DAY_MS
        usual: dict[str, Any] = {
            "epoch": await self.epoch(),
            "version": 1,
            "revision": 0,
            "starts": around - 40 * DAY_MS,
            "ends": around + 40 * DAY_MS,
            "cursor": "0-0",
            "through": "0-0",
            "terms": TERMS,
            "blocked": "",
            "pool_version": int(subject[:1] == b"o"),
        } | said
        usual.setdefault("good_until", usual["ends"])
        return await self.scripts.load(self.partition, subject, limits=limits, **usual)

    async def record(
        self, *events: Event, enforce: bool = True, cap: int = CAP, touch: bool = False
    ) -> Recorded:
        """Records; raises `Fenced` when the partition is."""
        recorded = await self.scripts.record(events, enforce=enforce, cap=cap, touch=touch)
        if any(answer.outcome is Outcome.FENCED for answer in recorded.answers):
            raise Fenced
        return recorded

    async def check(
        self,
        units: int,
        *,
        who: bytes = USER,
        usage_type: str = "calls",
        enforce: bool = True,
    ) -> CheckAnswer:
        pool = who[:17] if who[:1] == b"o" else None
        checked = await self.scripts.check(
            self.partition, who, pool, enforce=enforce, usage_type=usage_type, units=units
        )
        return checked.answer

    # Looking behind the scripts.

    async def _raw(self, command: str, key: str, *args: str) -> Any:
        """The reply as the server sends it, before a client library reshapes it."""
        call = f"return redis.call('{command}', KEYS[1], unpack(ARGV))"
        return await self.server.run("EVAL", call, 1, key, *args)

    async def hset(self, key: str, **fields: Any) -> None:
        await self.server.run("HSET", key, *(part for item in fields.items() for part in item))

    async def hash(self, key: str) -> dict[str, bytes]:
        flat = await self._raw("HGETALL", key)
        return quota_in_words({flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)})

    async def meta(self) -> dict[str, str]:
        return {name: raw.decode() for name, raw in (await self.hash(self.meta_key)).items()}

    async def epoch(self) -> int:
        return int((await self.meta()).get("epoch", "0"))

    def quota_key(self, subject: bytes) -> str:
        return keys.quota(self.partition, subject)

    async def used(self, subject: bytes = USER, usage_type: str = "calls") -> int:
        fields = await self.hash(self.quota_key(subject))
        return int(fields.get(f"used:{usage_type}", b"0"))

    async def entries(self) -> list[tuple[str, dict[str, bytes]]]:
        return [
            (
                entry[0].decode(),
                entry_in_words({flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}),
            )
            for entry in await self._raw("XRANGE", self.stream_key, "-", "+")
            for flat in [entry[1]]
        ]

    async def life(self, subject: bytes) -> int:
        """Seconds until the subject's quota expires."""
        return int(await self.server.run("TTL", self.quota_key(subject)))

    async def keys(self, pattern: str = "*") -> list[str]:
        return sorted(key.decode() for key in await self.server.run("KEYS", pattern))

    async def receipts(self) -> int:
        """How many there are. A hash holds one field more, which says that it will expire."""
        found = await self.keys(f"{keys.receipts(self.partition)}*")
        for key in found:
            assert await self.server.run("HGET", key, MARKER) is not None, f"{key}: no marker"
        return sum([await self.server.run("HLEN", key) - 1 for key in found])

    async def standing(self) -> Standing:
        return await standing(self.server, self.partition)

    async def calls(self, command: str) -> int:
        """How often the server has run this command, also for scripts."""
        found = await self._raw("INFO", "commandstats")
        said = re.search(rf"cmdstat_{command}:calls=(\d+)", found.decode())
        return int(said.group(1)) if said else 0

    async def state(self) -> dict[str, tuple[bytes, int]]:
        """Everything the server holds, byte for byte, and when each key expires."""
        return {
            key: (await self.server.run("DUMP", key), await self.server.run("PEXPIRETIME", key))
            for key in await self.keys()
        }
