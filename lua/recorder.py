"""The record script on the hot path: sent in this moment, and its end told at once, so that Redis
waits for the next call no longer than it must."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from lua.cluster import Cluster
from lua.connection import Moved, NoScript, RedisUnavailable
from lua.multiplexer import Multiplexer
from lua.record_call import RecordCall
from lua.scripts import Scripts
from lua.types import Recorded


class Recorder:
    def __init__(
        self, redis: Cluster[Multiplexer], scripts: Scripts, *, enforce: bool, cap: int
    ) -> None:
        self._redis = redis
        self._scripts = scripts
        self._enforce = enforce
        self._cap = cap

    def send(self, call: RecordCall, landed: Callable[[], None]) -> Awaitable[Recorded]:
        """Sends a call; await what became of it. `landed` is called once, before that: when there
        is a reply, or will be none. Raises `RedisUnavailable`."""
        names, args = call.key_names(), call.args(self._enforce, self._cap)
        command = ("EVALSHA", self._scripts.record_sha, len(names), *names, *args)
        return self._read(call, self._redis.of(names[0]).send(command, landed))

    async def _read(self, call: RecordCall, reply: Awaitable[Any]) -> Recorded:
        try:
            return call.read(await reply)
        except (NoScript, Moved):  # nothing was done: once more, the slower way
            return await self._scripts.run_record(call, enforce=self._enforce, cap=self._cap)
        except RedisUnavailable:
            self._redis.doubt()
            raise
