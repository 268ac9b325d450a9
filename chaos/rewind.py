"""Postgres as it was a moment ago: what a restore brings back, or a replica that was behind."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

from chaos.stand import RETENTION_S, Stand, children, send
from gateway.children import StartError
from ledger import clock

# Between the copy and its coming back. The drain trims what it committed `RETENTION_S` ago; what is
# left of that is for ending the server.
MOST_S = RETENTION_S - 2.0


async def rewind(stand: Stand, hold_s: float, end: signal.Signals) -> None:
    """Copies the data of the running server, and puts the copy in its place after `hold_s`, or as
    soon as the streams would else forget what comes between."""
    server = stand.postgres
    data, copy, former = (server.folder / name for name in ("data", "copy", "former"))
    began = clock.monotonic()
    await _copy(server.pid, data, copy)
    await asyncio.sleep(min(hold_s, began + MOST_S - clock.monotonic()))
    server.kill(end)
    await server.wait()
    data.rename(former)
    copy.rename(data)
    await server.start()
    shutil.rmtree(former)


async def _copy(postmaster: int, data: Path, copy: Path) -> None:
    """With the whole server frozen: as if it had been killed then."""
    send(postmaster, signal.SIGSTOP)  # first: only it starts others
    pids = [postmaster, *children(postmaster)]
    for pid in pids:
        send(pid, signal.SIGSTOP)
    try:
        copying = await asyncio.create_subprocess_exec("cp", "-a", data, copy)
        if await copying.wait() != 0:
            raise StartError(f"{data} cannot be copied")
    finally:
        for pid in pids:
            send(pid, signal.SIGCONT)
