"""The servers behind REDIS_URL: one, or the primaries of a Redis Cluster.

A partition is one slot, and a slot is on one primary at a time. Which one is known from CLUSTER
SLOTS, asked whenever somebody looks at the servers and when one of them fails, and from MOVED, with
which a server names the owner of a slot that it has not.

While a slot is being moved key by key, nothing of it is served: the source answers TRYAGAIN or ASK,
and neither is followed. The record script could not be run in any case, because its receipts are
keys of their own and may be on either side (`lua/record.lua`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit, urlunsplit

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from lua.connection import Moved, NoScript, RedisUnavailable, Refused

REDIRECTS = 3  # a slot may be moved again while it is asked for, and two servers may disagree
PAUSE_S = 0.1  # between two questions for the map: a fail-over takes much longer
ALONE = "redis"  # the name of a server that is no cluster's


class Server(Protocol):
    """A connection to one server. Raises `RedisUnavailable`."""

    async def run(self, *command: Any) -> Any: ...

    async def transaction(self, commands: Sequence[Sequence[Any]]) -> list[Any]: ...

    async def close(self) -> None: ...


S = TypeVar("S", bound=Server)
T = TypeVar("T")


class Cluster(Generic[S]):
    """Brings each command to the server that has its key. On one server that is all it does: it
    has been asked once whether it is part of a cluster."""

    def __init__(self, url: str, connect: Callable[[str], S]) -> None:
        self._url = urlsplit(url)
        self._connect = connect
        self._named = connect(url)  # the one that REDIS_URL names
        self._servers: dict[str, S] = {}  # by address, also those that own nothing any more
        self._owners: list[str | None] = []  # by slot; empty: one server, or not known yet
        self._alone = False
        self._asked = 0
        self._asking: asyncio.Task[None] | None = None
        self._spread: Callable[[], None] | None = None

    def when_spread(self, told: Callable[[], None]) -> None:
        """Calls `told` once, when this turns out to be a cluster."""
        self._spread = told

    def of(self, key: str) -> S:
        """The server that has a key, as far as is known."""
        return self._server(self._owners[slot_of(key)]) if self._owners else self._named

    def name_of(self, key: str) -> str | None:
        """The same by its name in `primaries`; None where no server has the slot."""
        return self._owners[slot_of(key)] if self._owners else ALONE

    async def primaries(self) -> dict[str, S]:
        """Every server that keys are on, by name: host and port, or `ALONE`. Whether they answer
        is for the caller to see."""
        await self.look_round()
        if not self._owners:
            return {ALONE: self._named}
        return {one: self._server(one) for one in _distinct(self._owners)}

    async def look_round(self) -> None:
        """Reads the map from the first server that tells; where none does the old one stays."""
        for server in [] if self._alone else list(self._whom()):
            try:
                self._know(self._read(await server.run("CLUSTER", "SLOTS")))
                return
            except Refused as error:
                self._alone = not self._owners and "cluster support disabled" in error.reply
            except RedisUnavailable:
                continue

    async def run(self, *command: Any) -> Any:
        """Sends one command about one key, its first argument. Raises `RedisUnavailable`."""
        return await self._at(command[1], lambda server: server.run(*command))

    async def evalsha(self, sha: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return await self._run_at(keys[0], "EVALSHA", sha, len(keys), *keys, *args)

    async def eval(self, source: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return await self._run_at(keys[0], "EVAL", source, len(keys), *keys, *args)

    async def transaction(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Of one partition; the first is a script, whose first key says of which."""
        return await self._at(commands[0][3], lambda server: server.transaction(commands))

    async def _run_at(self, key: str, *command: Any) -> Any:
        return await self._at(key, lambda server: server.run(*command))

    def follow(self, moved: Moved) -> None:
        """Believes a server that has named the owner of a slot. Nothing was done: what was asked
        may be sent to that one."""
        self._alone = False
        if not self._owners:
            self._know([self._full("")] * REDIS_CLUSTER_HASH_SLOTS)
        self._owners[moved.slot] = self._full(moved.address)
        self.doubt()

    def doubt(self) -> None:
        """Looks round soon: a server failed, and another may have its slots by now."""
        if self._owners and self._asking is None:
            self._asking = asyncio.ensure_future(self._look_round_and_rest())

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
        for server in (self._named, *self._servers.values()):
            await server.close()

    async def _at(self, key: str, ask: Callable[[S], Awaitable[T]]) -> T:
        for _ in range(REDIRECTS):
            try:
                return await ask(self.of(key))
            except Moved as moved:
                self.follow(moved)
            except RedisUnavailable as error:
                if not isinstance(error, NoScript):
                    self.doubt()
                raise
        raise RedisUnavailable("the servers of the cluster disagree", outcome_unknown=False)

    async def _look_round_and_rest(self) -> None:
        try:
            await self.look_round()
            await asyncio.sleep(PAUSE_S)
        finally:
            self._asking = None

    def _whom(self) -> Iterator[S]:
        """Each time another comes first: one that is cut off from the rest still tells its map."""
        known = _distinct(self._owners)
        self._asked += 1
        first = self._asked % len(known) if known else 0
        yield from map(self._server, known[first:] + known[:first])
        yield self._named

    def _know(self, owners: list[str | None]) -> None:
        self._owners = owners
        if self._spread is not None:
            told, self._spread = self._spread, None
            told()

    def _read(self, ranges: Iterable[Any]) -> list[str | None]:
        owners: list[str | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, (host, port, *_), *_ in ranges:
            address = self._full(f"{(host or b'').decode()}:{port}")
            owners[first : last + 1] = [address] * (last + 1 - first)
        return owners

    def _full(self, address: str) -> str:
        """Host and port. A server that does not know its own host is where it was asked."""
        host, _, port = address.rpartition(":")
        own = self._url.hostname or "localhost"
        return f"{host if host not in ('', '?') else own}:{port or self._url.port or 6379}"

    def _server(self, address: str | None) -> S:
        if address is None:  # nobody's slot: any server says so
            return self._named
        server = self._servers.get(address)
        if server is None:
            server = self._servers[address] = self._connect(self._url_of(address))
        return server

    def _url_of(self, address: str) -> str:
        """With the user, password and scheme of REDIS_URL."""
        host, _, port = address.rpartition(":")
        if ":" in host:
            host = f"[{host.strip('[]')}]"
        user, at, _ = self._url.netloc.rpartition("@")
        return urlunsplit(self._url._replace(netloc=f"{user}{at}{host}:{port}"))


@lru_cache(maxsize=4096)  # of streams and metas: two for each partition
def slot_of(key: str) -> int:
    return key_slot(key.encode())


def _distinct(owners: Iterable[str | None]) -> list[str]:
    return [one for one in dict.fromkeys(owners) if one is not None]
