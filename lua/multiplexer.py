"""One Redis connection shared by everybody: commands go out as they come, replies match in order.

Our own because this is the hot path: a call through redis-py's pool costs many times the CPU
(docs/performance.md); hiredis packs and parses in C. It does nothing else: no retries, no pool.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio.connection import parse_url

from lua.connection import (
    CONNECT_TIMEOUT_S,
    REPLY_TIMEOUT_S,
    RedisUnavailable,
    refused,
)

WATCH_S = 0.1  # how often the oldest call's age is looked at


class Multiplexer:
    """Runs scripts on a Redis server over one connection, opened when first needed and again
    after it broke. A caller that goes away leaves its reply to be read and dropped. `connected` is
    called when there is a new connection, before anything else is sent over it."""

    def __init__(self, url: str, *, reply_timeout_s: float = REPLY_TIMEOUT_S) -> None:
        self.connected: Callable[[], None] = _nothing
        self._address: Mapping[str, Any] = parse_url(url)
        self._reply_timeout_s = reply_timeout_s
        self._wire: _Wire | None = None
        self._connecting: asyncio.Task[_Wire] | None = None

    async def evalsha(self, sha: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return await self.run("EVALSHA", sha, len(keys), *keys, *args)

    async def eval(self, source: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return await self.run("EVAL", source, len(keys), *keys, *args)

    async def run(self, *command: Any) -> Any:
        """Sends one command. Raises `RedisUnavailable`."""
        wire = self._wire
        if wire is None or wire.closed:
            wire = await self._connect()
        return await _said(wire.send(command))

    def send(self, command: Sequence[Any], landed: Callable[[], None]) -> Awaitable[Any]:
        """Sends one command in this moment where there is a connection, and calls `landed` in the
        moment there is a reply or will be none. Await the reply; raises as `run` does."""
        wire = self._wire
        if wire is None or wire.closed:
            later = asyncio.ensure_future(self.run(*command))
            later.add_done_callback(lambda _: landed())
            return later
        return _said(wire.send(command, landed))

    def send_all(
        self, commands: Sequence[Sequence[Any]], landed: Callable[[], None]
    ) -> Awaitable[list[Any]]:
        """`send` for commands that must go over one connection, without a wait between them. Await
        all replies, in place of each the exception it means; `landed` comes with the last."""
        wire = self._wire
        if wire is None or wire.closed:
            later = asyncio.ensure_future(self._run_all(commands))
            later.add_done_callback(lambda _: landed())
            return later
        return _all_said([*map(wire.send, commands[:-1]), wire.send(commands[-1], landed)])

    async def _run_all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        wire = await self._connect()
        return await _all_said([wire.send(one) for one in commands])

    async def transaction(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Their replies, all of one instant. Raises as `run` does, for the first that failed."""
        said = await self.send_all([("MULTI",), *commands, ("EXEC",)], _nothing)
        for one in said:
            if isinstance(one, BaseException):
                raise one
        replies: list[Any] = said[-1]
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise refused(str(reply))
        return replies

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
        if self._wire is not None:
            self._wire.close()

    async def _connect(self) -> _Wire:
        """One attempt for all who wait. Nothing has been sent, so nothing can have happened."""
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._open())
            self._connecting.add_done_callback(self._connected)
        try:
            return await asyncio.shield(self._connecting)
        except (OSError, TimeoutError, hiredis.HiredisError) as error:
            raise RedisUnavailable(
                f"no connection to Redis ({type(error).__name__})", outcome_unknown=False
            ) from error

    def _connected(self, attempt: asyncio.Task[_Wire]) -> None:
        self._connecting = None
        if not attempt.cancelled() and attempt.exception() is None:
            self._wire = attempt.result()
            self.connected()

    async def _open(self) -> _Wire:
        address = self._address
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, wire = await loop.create_connection(
                lambda: _Wire(loop, self._reply_timeout_s),
                address.get("host", "localhost"),
                address.get("port", 6379),
                ssl="connection_class" in address or None,
            )
            try:
                for command in _greeting(address):
                    reply = await wire.send(command)
                    if isinstance(reply, hiredis.ReplyError):
                        raise reply
            except BaseException:
                wire.close()
                raise
            return wire


async def _said(reply: asyncio.Future[Any]) -> Any:
    said = await reply
    if isinstance(said, hiredis.ReplyError):
        raise refused(str(said))
    return said


async def _all_said(replies: Sequence[asyncio.Future[Any]]) -> list[Any]:
    return await asyncio.gather(*map(_said, replies), return_exceptions=True)


def _greeting(address: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    commands: list[tuple[Any, ...]] = []
    if password := address.get("password"):
        user = address.get("username")
        commands.append(("AUTH", user, password) if user else ("AUTH", password))
    if database := address.get("db"):
        commands.append(("SELECT", database))
    return commands


def _nothing() -> None:
    pass


class _Wire(asyncio.Protocol):
    """The connection itself. Replies come in the order of the commands, so a queue of futures is
    all that is needed to bring each to its caller."""

    def __init__(self, loop: asyncio.AbstractEventLoop, reply_timeout_s: float) -> None:
        self._loop = loop
        self._reply_timeout_s = reply_timeout_s
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[float, asyncio.Future[Any], Callable[[], None]]] = deque()
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.closed = False

    def send(
        self, command: Sequence[Any], landed: Callable[[], None] = _nothing
    ) -> asyncio.Future[Any]:
        """Sends a command; the future is its reply, an error reply included."""
        future = self._loop.create_future()
        if self._transport is None or self.closed:
            future.set_exception(_lost())
            landed()
            return future
        self._transport.write(hiredis.pack_command(tuple(command)))
        self._waiting.append((self._loop.time(), future, landed))
        return future

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self._watch = self._loop.call_later(WATCH_S, self._look)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while True:
            try:
                reply = self._reader.gets()
                if reply is False:
                    return
                _, future, landed = self._waiting.popleft()
            except (hiredis.ProtocolError, IndexError):
                self.close()  # whose reply the next one is can no longer be known
                return
            if not future.done():
                future.set_result(reply)  # its caller wakes later
            landed()

    def connection_lost(self, _: Exception | None) -> None:
        self.closed = True
        if self._watch is not None:
            self._watch.cancel()
        waiting, self._waiting = self._waiting, deque()
        for _sent, future, landed in waiting:
            if not future.done():
                future.set_exception(_lost())
            landed()

    def _look(self) -> None:
        """A call without reply for too long: the connection is given up, and with it all calls
        behind it, because their replies could only come after."""
        if self._waiting and self._loop.time() - self._waiting[0][0] > self._reply_timeout_s:
            self.close()
            return
        self._watch = self._loop.call_later(WATCH_S, self._look)


def _lost() -> RedisUnavailable:
    return RedisUnavailable("the connection to Redis was lost", outcome_unknown=True)
