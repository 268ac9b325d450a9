"""Real servers in a folder, for `./run` and for the tests; Valkey here, Postgres in `postgres`.

Both listen on loopback only, with a password that no command line shows, on a port that is
remembered. A server may be killed at any time; starting it again finds its data.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

import msgspec

from gateway import binaries as server_binaries
from gateway.children import Child, StartError, last_line
from gateway.datadir import write_private
from ledger import clock

LOOPBACK = "127.0.0.1"
# Below the ports that the kernel hands to outgoing connections: a client that keeps trying to
# reach a dead server on such a port can end up connected to itself and so occupy it.
_PORTS = range(20000, 32000)
_PORT_TRIES = 3
# No jemalloc in the embedded build: with few free pieces at hand scripts take a sixth longer.
_MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=60000"}
_READY_TIMEOUT_S = 120.0  # a long append-only file or a crash recovery is read first
POLL_S = 0.02
_PING_TIMEOUT_S = 10.0


class _Access(msgspec.Struct):
    """What a server keeps for its next start."""

    port: int
    password: str


class Server(Child):
    """A server with a folder of its own; `url` is valid once it has been started."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder.resolve()
        self.log = self.folder / "server.log"
        self._access: _Access | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect, password included."""

    @property
    def access(self) -> _Access:
        assert self._access is not None, f"{self.name} was never started"
        return self._access

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Starts the server, on the same port if it ran before. Returns when it answers."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            tries = 1 if self._access else _PORT_TRIES  # clients of a restarted one know its port
            for _ in range(tries):
                self._access = self._access if tries == 1 else self._choose_access()
                await self._prepare()
                with self.log.open("wb") as log:
                    await self._serve(log.fileno())
                if await self._answers():
                    return
                if _is_free(self.access.port):
                    break  # then another port would not help
        except OSError as error:
            raise StartError(f"{self.name} does not start: {error}") from None
        raise StartError(f"{self.name} does not start: {last_line(self.log)} (see {self.log})")

    @abstractmethod
    async def _prepare(self) -> None:
        """Writes what the server reads when it starts."""

    @abstractmethod
    async def _serve(self, log: int) -> None:
        """Launches it; `log` is an open file."""

    @abstractmethod
    async def _ping(self) -> bool:
        """Whether it answers as it will to clients."""

    async def _answers(self) -> bool:
        deadline = clock.monotonic() + _READY_TIMEOUT_S
        while self.running:
            with suppress(OSError, TimeoutError):
                if await asyncio.wait_for(self._ping(), _PING_TIMEOUT_S):
                    return True
            if clock.monotonic() > deadline:
                await self.stop()
                raise StartError(f"{self.name} does not answer (see {self.log})")
            await asyncio.sleep(POLL_S)
        return False

    def _choose_access(self) -> _Access:
        path = self.folder / "access.json"
        if path.exists():
            access = msgspec.json.decode(path.read_bytes(), type=_Access)
        else:
            access = _Access(random.choice(_PORTS), secrets.token_urlsafe(24))
        while not _is_free(access.port):
            access.port = random.choice(_PORTS)
        write_private(path, msgspec.json.encode(access))
        return access


class Valkey(Server):
    """Valkey (or Redis) with an append-only file that is synced before each answer."""

    name = "redis"

    def __init__(self, data_dir: Path, *, fsync: Literal["always", "everysec"] = "always") -> None:
        super().__init__(data_dir / "redis")
        self._program = server_binaries.valkey()
        self._fsync = fsync

    @property
    def url(self) -> str:
        return f"redis://:{self.access.password}@{LOOPBACK}:{self.access.port}/0"

    def _settings(self) -> dict[str, object]:
        return {
            "bind": LOOPBACK,
            "port": self.access.port,
            "protected-mode": "yes",
            "requirepass": self.access.password,
            "appendonly": "yes",
            "appendfsync": self._fsync,
            "no-appendfsync-on-rewrite": "no",
            "save": '""',
            # Quotas must never be evicted, nor the stream's backlog dropped.
            "maxmemory-policy": "noeviction",
            "repl-backlog-ttl": 0,
        }

    async def _prepare(self) -> None:
        text = "".join(f"{name} {value}\n" for name, value in self._settings().items())
        write_private(self.folder / "redis.conf", text.encode())

    async def _serve(self, log: int) -> None:
        environ = _MALLOC | os.environ
        await self._launch([self._program, "redis.conf"], cwd=self.folder, env=environ, output=log)

    async def _ping(self) -> bool:
        reader, writer = await asyncio.open_connection(LOOPBACK, self.access.port)
        try:
            writer.write(f"AUTH {self.access.password}\r\nPING\r\n".encode())
            return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
