"""Postgres in a folder: one database, `billing`, for `./run` and for the tests."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from gateway import binaries as server_binaries
from gateway.children import StartError, last_line
from gateway.datadir import write_private
from gateway.dev.servers import LOOPBACK, POLL_S, Server
from ledger import clock

_FORMER_TIMEOUT_S = 10.0


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
        if not fsync:
            self.stop_signal = self.orphan_signal  # what is thrown away need not be written first
        self._user = server_binaries.UNPRIVILEGED if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        return self._url("billing")

    def _url(self, database: str) -> str:
        return (
            f"postgresql://billing:{self.access.password}@{LOOPBACK}:{self.access.port}/{database}"
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
            await asyncio.sleep(POLL_S)
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    async def _serve(self, log: int) -> None:
        settings = {
            "listen_addresses": LOOPBACK,
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


def _processes_in(folder: Path) -> Iterator[int]:
    """The processes that work in `folder` (Linux; elsewhere none are seen)."""
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if link.readlink() == folder:
                yield int(link.parent.name)
        except OSError:
            continue  # it ended meanwhile, or is another user's
