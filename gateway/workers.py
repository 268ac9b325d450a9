"""Several gateway processes on one port: started, replaced and stopped as one.

Each has a listening socket of its own (SO_REUSEPORT spreads connections over them) that belongs to
the parent: a worker that crashes or is replaced leaves the connections that wait on its socket to
its successor, so that none is refused.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import structlog

from gateway.children import Child, StartError
from gateway.supervise import keep_alive
from ledger.settings import Settings

log = structlog.get_logger()

BACKLOG = 1024
_READY_TIMEOUT_S = 60.0  # a worker opens its port before it looks for Redis or Postgres


class Worker(Child):
    """One process; its successor takes over the socket before it ends."""

    def __init__(self, slot: int, listening: socket.socket, environ: Mapping[str, str]) -> None:
        super().__init__()
        self.name = f"gateway worker {slot}"
        self._slot = slot
        self._listening = listening
        self._environ = environ
        self._generation = 0

    async def start(self) -> None:
        self._generation += 1
        ready, tell = os.pipe()
        try:
            # Two names in turn: while one generation ends and the next begins, both count.
            identity = f"{self._slot}-{self._generation % 2}"
            descriptors = (self._listening.fileno(), tell)
            process = await self._launch(
                [sys.executable, "-P", "-m", "gateway", identity, *map(str, descriptors)],
                env=self._environ,
                pass_fds=descriptors,
            )
        finally:
            os.close(tell)
        try:
            await _readable(ready)
            if not os.read(ready, 1):
                code = await process.wait()
                raise StartError(f"{self.name} does not start", code if code == 2 else 1)
        finally:
            os.close(ready)

    async def wait(self) -> int:
        """The exit code of the worker that is in charge; one that was replaced may end."""
        while True:
            current = self._process
            code = 0 if current is None else await current.wait()
            if current is self._process:
                return code

    async def replace(self) -> None:
        """Starts a successor, then lets this one answer what it has begun. Raises `StartError`;
        then the old one goes on."""
        old = self._process
        try:
            await self.start()
        except StartError:
            self._process = old
            raise
        if old is not None and old.returncode is None:
            old.send_signal(signal.SIGTERM)
            await old.wait()


async def run(config: Settings, environ: Mapping[str, str], stop: asyncio.Event) -> None:
    """Runs the workers until `stop`; SIGHUP replaces them one after the other. Raises
    `StartError`, or `OSError` when the port cannot be opened."""
    reloads = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloads.set)
    async with AsyncExitStack() as stack:
        counts = tempfile.mkdtemp(prefix="billing-metrics-")
        stack.callback(shutil.rmtree, counts, ignore_errors=True)
        variables = {**environ, "PROMETHEUS_MULTIPROC_DIR": counts}
        workers = []
        port = config.port
        for slot in range(config.gateway_workers):
            listening = _listen(config.host, port)
            stack.callback(listening.close)
            port = listening.getsockname()[1]
            workers.append(Worker(slot, listening, variables))
        for worker in workers:
            stack.push_async_callback(worker.stop)
            await worker.start()
        log.info("gateway_started", host=config.host, port=port, workers=len(workers))
        watching = asyncio.ensure_future(keep_alive(workers, _reload(workers, reloads)))
        stopping = asyncio.ensure_future(stop.wait())
        done, _ = await asyncio.wait((watching, stopping), return_when=asyncio.FIRST_COMPLETED)
        watching.cancel()
        stopping.cancel()
        if watching in done:
            watching.result()
        await asyncio.gather(*(worker.stop() for worker in workers))


async def _reload(workers: Sequence[Worker], reloads: asyncio.Event) -> None:
    while True:
        await reloads.wait()
        reloads.clear()
        for worker in workers:
            try:
                await worker.replace()
            except StartError as error:
                log.error("reload_failed", reason=str(error))
                break
        else:
            log.info("gateway_reloaded", workers=len(workers))


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind(address)
    listening.listen(BACKLOG)
    listening.setblocking(False)
    return listening


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await asyncio.wait_for(readable.wait(), _READY_TIMEOUT_S)
    except TimeoutError:
        raise StartError("a gateway worker does not get ready") from None
    finally:
        loop.remove_reader(descriptor)
