"""Programs under test as child processes, on the cores of the server."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import cpus
from gateway.children import Child, StartError, last_line
from ledger import clock

HOST = "127.0.0.1"
_READY_S = 30.0
_POLL_S = 0.02
_ROOT = Path(__file__).resolve().parents[1]


class Process(Child):
    """A child with a log of its own; started, it listens on `port` when it has one."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        folder: Path,
        cores: cpus.Cores,
        environ: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.port = port
        self._argv = argv
        self._cores = cores
        self._log = folder / f"{name}.log"
        # Nothing of the caller's own settings reaches what is measured.
        self._environ = {"PATH": os.environ.get("PATH", os.defpath), **(environ or {})}

    async def start(self) -> None:
        with self._log.open("ab") as log, cpus.pinned(self._cores):
            await self._launch(self._argv, env=self._environ, output=log.fileno())
        deadline = clock.monotonic() + _READY_S
        while self.port is not None and not await self._answers(self.port):
            if not self.running or clock.monotonic() > deadline:
                await self.stop()
                raise StartError(f"{self.name} does not start: {last_line(self._log)}")
            await asyncio.sleep(_POLL_S)

    async def _answers(self, port: int) -> bool:
        """Whether it speaks HTTP (whatever it says)."""
        try:
            reader, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            return False
        try:
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return (await reader.readline()).startswith(b"HTTP/1.1")
        except OSError:
            return False
        finally:
            writer.close()

    @property
    def cpu_s(self) -> float:
        return cpus.cpu_seconds(self.pid)

    @property
    def address(self) -> tuple[str, int]:
        assert self.port is not None, f"{self.name} does not listen"
        return HOST, self.port


def program(
    package: str,
    environ: Mapping[str, str],
    *,
    folder: Path,
    cores: cpus.Cores,
    port: int | None = None,
    name: str | None = None,
) -> Process:
    """One of our own packages, run as `python -m <package>`."""
    own = {"PYTHONPATH": str(_ROOT), **environ}
    if port is not None:
        own["PORT"] = str(port)
    return Process(
        name or package,
        [sys.executable, "-P", "-m", package],
        folder=folder,
        cores=cores,
        environ=own,
        port=port,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
