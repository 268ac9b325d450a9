"""Real servers in a folder: Valkey and Postgres for `./run` and for the tests.

Both listen on loopback only, with a password that no command line shows, on a port that is
remembered. A server may be killed at any time; starting it again finds its data.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

import asyncpg
import msgspec

from gateway.children import Child, StartError, last_line
from gateway.dev import binaries as server_binaries
from gateway.dev.datadir import write_private
from ledger import clock

_LOOPBACK = "127.0.0.1"
# Below the ports that the kernel hands to outgoing connections: a client that keeps trying to
# reach a dead server on such a port can end up connected to itself and so occupy it.
_PORTS = range(20000, 32000)
_PORT_TRIES = 3
# No jemalloc in the embedded build: with few free pieces at hand scripts take a sixth longer.
_MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=60000"}
_READY_TIMEOUT_S = 120.0  # a long append-only file or a crash recovery is read first
_READY_POLL_S = 0.02
_PING_TIMEOUT_S = 10.0
_FORMER_TIMEOUT_S = 10.0


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
    def url(self) -> str:
        """Where clients connect, password included."""
        raise NotImplementedError

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

    async def _prepare(self) -> None:
        raise NotImplementedError

    async def _serve(self, log: int) -> None:
        raise NotImplementedError

    async def _ping(self) -> bool:
        raise NotImplementedError

    async def _answers(self) -> bool:
        deadline = clock.monotonic() + _READY_TIMEOUT_S
        while self.running:
            with suppress(OSError, TimeoutError):
                if await asyncio.wait_for(self._ping(), _PING_TIMEOUT_S):
                    return True
            if clock.monotonic() > deadline:
                await self.stop()
                raise StartError(f"{self.name} does not answer (see {self.log})")
            await asyncio.sleep(_READY_POLL_S)
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
        return f"redis://:{self.access.password}@{_LOOPBACK}:{self.access.port}/0"

    def _settings(self) -> dict[str, object]:
        return {
            "bind": _LOOPBACK,
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
        reader, writer = await asyncio.open_connection(_LOOPBACK, self.access.port)
        try:
            writer.write(f"AUTH {self.access.password}\r\nPING\r\n".encode())
            return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()


class Postgres(Server):
    """Postgres with one database, `billing`. Started by root it runs as `nobody`."""

    name = "postgres"
    stop_signal = signal.SIGINT  # its fast shutdown
    orphan_signal = signal.SIGQUIT  # its immediate one, which ends its own children too

    def __init__(self, data_dir: Path, *, fsync: bool = True) -> None:
        self._programs = server_binaries.postgres()
        super().__init__(data_dir / f"postgres-{self._programs.major}")
        self._data = self.folder / "data"
        self._fsync = fsync
        self._user = server_binaries.UNPRIVILEGED if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        return self._url("billing")

    def _url(self, database: str) -> str:
        return (
            f"postgresql://billing:{self.access.password}@{_LOOPBACK}:{self.access.port}/{database}"
        )

    async def _prepare(self) -> None:
        if self._data.exists():
            await self._await_former_end()
        else:
            await self._initialise()

    async def _initialise(self) -> None:
        """Makes the data folder aside, so that an interrupted attempt leaves nothing behind."""
        draft = self.folder / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        write_private(draft / "password", self.access.password.encode())
        if self._user:
            shutil.chown(draft, self._user)
            shutil.chown(draft / "password", self._user)
        modern = self._programs.major >= 17
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        with self.log.open("wb") as log, self._visible(draft) as (folder, descriptors):
            process = await self._launch(
                [
                    self._programs.folder / "initdb",
                    f"--pgdata={folder}/data",
                    f"--pwfile={folder}/password",
                    "--username=billing",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    *(locale if modern else ["--locale=C.UTF-8"]),
                    *([] if self._fsync else ["--no-sync"]),
                ],
                cwd="/",
                output=log.fileno(),
                user=self._user,
                pass_fds=descriptors,
            )
            if await process.wait() != 0:
                raise StartError(f"initdb failed: {last_line(self.log)} (see {self.log})")
        (draft / "data").rename(self._data)
        shutil.rmtree(draft)

    async def _await_former_end(self) -> None:
        """Lets the last processes of a killed server go, then forgets it: its process id may
        belong to somebody else by now, whom Postgres would take for a running server."""
        deadline = clock.monotonic() + _FORMER_TIMEOUT_S
        while pids := list(_processes_in(self._data)):
            if clock.monotonic() > deadline:
                raise StartError(f"process {pids[0]} already runs postgres in {self._data}")
            await asyncio.sleep(_READY_POLL_S)
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    async def _serve(self, log: int) -> None:
        settings = {
            "listen_addresses": _LOOPBACK,
            "port": self.access.port,
            "unix_socket_directories": "",
            "fsync": "on" if self._fsync else "off",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self._visible(self._data) as (folder, descriptors):
            await self._launch(
                [self._programs.folder / "postgres", "-D", folder, *options],
                cwd="/",
                output=log,
                user=self._user,
                pass_fds=descriptors,
            )

    async def _ping(self) -> bool:
        try:
            connection = await asyncpg.connect(self._url("postgres"))
        except (asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
            return False
        try:
            known = "SELECT 1 FROM pg_database WHERE datname = 'billing'"
            if not await connection.fetchval(known):
                await connection.execute("CREATE DATABASE billing")
        finally:
            await connection.close()
        return True

    @contextmanager
    def _visible(self, folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
        """A path to `folder` for the server's user, who may not pass the folders above it (such
        as /root): an open descriptor, by its name in /proc, needs no passage."""
        if self._user is None:
            yield str(folder), ()
            return
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}", (descriptor,)
        finally:
            os.close(descriptor)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError:
            return False
    return True


def _processes_in(folder: Path) -> Iterator[int]:
    """The processes that work in `folder` (Linux; elsewhere none are seen)."""
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if link.readlink() == folder:
                yield int(link.parent.name)
        except OSError:
            continue  # it ended meanwhile, or is another user's
