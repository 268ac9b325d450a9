"""What a partition says of itself, for probes and people; scripts read it for themselves."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from lua import keys


class Standing(msgspec.Struct, frozen=True):
    """`replid`: the server vouched for, None before the first time. `undrained`: entries that the
    ledger has not reported as drained."""

    replid: str | None
    undrained: int


class Redis(Protocol):
    async def run(self, *command: Any) -> Any: ...


async def floor(redis: Redis, partition: int) -> str:
    """The last entry that was ever trimmed."""
    [found] = await redis.run("HMGET", keys.meta(partition), "floor")
    return "0-0" if found is None else found.decode()


class History(msgspec.Struct, frozen=True):
    """What a server says of its history. `trimmed`: entries that are no longer in the stream, by
    its own count; `last_id`: of the newest entry, 0-0 without one."""

    replid: str | None
    epoch: int
    floor: str
    trimmed: int
    last_id: str


async def history(redis: Redis, partition: int) -> History:
    names = ("replid", "epoch", "floor", "drained", "retained")
    replid, epoch, end, drained, retained = await redis.run("HMGET", keys.meta(partition), *names)
    newest = await redis.run("XREVRANGE", keys.stream(partition), "+", "-", "COUNT", 1)
    return History(
        None if replid is None else replid.decode(),
        int(epoch or 0),
        "0-0" if end is None else end.decode(),
        int(drained or 0) - int(retained or 0),
        newest[0][0].decode() if newest else "0-0",
    )


async def standing(redis: Redis, partition: int) -> Standing:
    replid, retained = await redis.run("HMGET", keys.meta(partition), "replid", "retained")
    entries = await redis.run("XLEN", keys.stream(partition))
    return Standing(
        None if replid is None else replid.decode(), max(0, entries - int(retained or 0))
    )
