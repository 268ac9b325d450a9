"""The scripts' connection over redis-py, and what can go wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

CONNECT_TIMEOUT_S = 2
REPLY_TIMEOUT_S = 2
CONNECTIONS = 64


class RedisUnavailable(Exception):
    """Redis did not answer, or refused to write. `outcome_unknown` when the script may have run
    all the same: only a retry with the same idempotency key can tell."""

    def __init__(self, reason: str, *, outcome_unknown: bool) -> None:
        super().__init__(reason)
        self.outcome_unknown = outcome_unknown


class Refused(RedisUnavailable):
    """Redis answered with an error. Every refusal of a script (out of memory, disk failing, still
    loading, a replica, its slot being moved, an error in it) comes before its first write."""

    def __init__(self, reply: str) -> None:
        super().__init__(f"Redis refused: {reply.split(' ', 1)[0]}", outcome_unknown=False)
        self.reply = reply


class NoScript(Refused):
    """The server does not know the script (it restarted, SCRIPT FLUSH, or another server of the
    cluster was given it): send the script itself."""


class Moved(Refused):
    """Another server of the cluster has the slot; `address` is its host and port."""

    def __init__(self, reply: str) -> None:
        super().__init__(reply)
        _, slot, self.address = reply.split(" ")[:3]
        self.slot = int(slot)


class RedisConnection:
    """Runs scripts on a Redis server. Nothing is retried here: redis-py's own retries have been
    seen to apply one write three times when replies were lost."""

    def __init__(self, url: str) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=REPLY_TIMEOUT_S,
            protocol=2,  # RESP3 raises on a connection that the server closed while idle
            socket_timeout=REPLY_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self.client: Redis = Redis.from_pool(pool)

    async def evalsha(self, sha: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return await self.run("EVALSHA", sha, len(keys), *keys, *args)

    async def eval(self, source: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return await self.run("EVAL", source, len(keys), *keys, *args)

    async def run(self, *command: Any) -> Any:
        """Sends one command. Raises `RedisUnavailable`."""
        with _told():
            return await self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def transaction(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Their replies, all of one instant. Raises as `run` does, for the first that failed."""
        pipeline = self.client.pipeline(transaction=True)
        for name, *args in commands:
            # Not as text: redis-py makes objects of the replies to names that it knows.
            pipeline.execute_command(name.encode(), *args)
        with _told():
            return await pipeline.execute()

    async def close(self) -> None:
        await self.client.aclose(close_connection_pool=True)


# redis-py takes the first word of these replies off.
_WORDS: dict[type[Exception], str] = {
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.MovedError: "MOVED",
    exceptions.AskError: "ASK",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
}


@contextmanager
def _told() -> Iterator[None]:
    """What redis-py raises, in our words."""
    try:
        yield
    except exceptions.ResponseError as error:
        # Of several commands it says first which one, and quotes the reply.
        reply = str(error).rpartition("of pipeline caused error: ")[2].strip("(),'\"")
        word = _WORDS.get(type(error))
        raise refused(f"{word} {reply}" if word else reply) from error
    except (exceptions.RedisError, OSError, TimeoutError) as error:
        raise RedisUnavailable(
            f"no answer from Redis ({type(error).__name__})", outcome_unknown=True
        ) from error


def refused(reply: str) -> Refused:
    """The exception of an error reply."""
    word = reply.split(" ", 1)[0]
    return {"NOSCRIPT": NoScript, "MOVED": Moved}.get(word, Refused)(reply)
