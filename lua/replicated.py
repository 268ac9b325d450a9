"""The record script where replicas must have synced what is answered (DURABILITY=replicated)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from lua.cluster import REDIRECTS, Cluster
from lua.connection import Moved, NoScript, RedisUnavailable
from lua.multiplexer import Multiplexer
from lua.record_call import RecordCall
from lua.recorder import Recorder
from lua.scripts import Scripts
from lua.types import Outcome, Recorded

# WAITAOF asks the replicas once, when it begins to wait, and a replica then tells what it had
# synced before it was asked; unasked it tells once a second. So it is asked again, and what comes
# after the yes ends at once. Redis notices the end of a wait at its next tick (`hz`: up to 0.1 s
# later). Two calls may be under way, one behind the other: both must end within REPLY_TIMEOUT_S.
ASKS_MS = (1, 10, 100, 400)
_SAYS_YES = (Outcome.RECORDED, Outcome.REPLAYED)


class ReplicatedRecorder(Recorder):
    """Sends WAITAOF right behind each call, on the connection that it is about, for the primary's
    own file and those of `replicas` replicas."""

    def __init__(
        self,
        redis: Cluster[Multiplexer],
        scripts: Scripts,
        *,
        enforce: bool,
        cap: int,
        replicas: int,
    ) -> None:
        super().__init__(redis, scripts, enforce=enforce, cap=cap)
        self._replicas = replicas
        self._asks = [("WAITAOF", 1, replicas, wait_ms) for wait_ms in ASKS_MS]

    def send(self, call: RecordCall, landed: Callable[[], None]) -> Awaitable[Recorded]:
        return self._synced(call, self._send(call, landed))

    def _send(
        self, call: RecordCall, landed: Callable[[], None] = lambda: None, *, whole: bool = False
    ) -> Awaitable[list[Any]]:
        """`whole`: with the script itself, for a server that does not know it."""
        names, args = call.key_names(), call.args(self._enforce, self._cap, touch=True)
        scripts = self._scripts
        how = ("EVAL", scripts.record_source) if whole else ("EVALSHA", scripts.record_sha)
        command = (*how, len(names), *names, *args)
        return self._redis.of(names[0]).send_all([command, *self._asks], landed)

    async def _synced(self, call: RecordCall, replies: Awaitable[list[Any]]) -> Recorded:
        said, *_, waited = await replies
        for _ in range(REDIRECTS):
            if isinstance(said, Moved):
                self._redis.follow(said)
            elif not isinstance(said, NoScript):
                break
            said, *_, waited = await self._send(call, whole=True)
        if isinstance(said, BaseException):
            self._redis.doubt()
            raise said
        recorded = call.read(said)
        if not self._enough(waited) and _says_yes(recorded):
            raise RedisUnavailable("not on enough replicas yet", outcome_unknown=True)
        return recorded

    def _enough(self, waited: Any) -> bool:
        """Whether all were in time; an error is a no: an older server, or its file is off."""
        if isinstance(waited, BaseException):
            return False
        own, replicas = map(int, waited)
        return own >= 1 and replicas >= self._replicas


def _says_yes(recorded: Recorded) -> bool:
    return any(answer.outcome in _SAYS_YES for answer in recorded.answers)
