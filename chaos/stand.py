"""Everything that runs during an episode, each a process of its own: Valkey, Postgres, a gateway of
two workers and two ledgers, which reach each other through relays only."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.processes import HOST, Process, program
from bench.relay import Relay
from chaos.accounts import PARTITIONS
from chaos.check import System
from chaos.schedule import LINKS
from gateway.children import Child, StartError
from gateway.dev.postgres import Postgres
from gateway.dev.servers import Valkey
from gateway.dev.tokens import dev_key, mint
from ledger import db, loops, migrate
from lua.connection import RedisConnection
from lua.scripts import Scripts

# Short, so that the stream is trimmed all the time and a load has to work with what is left; long
# enough for a database that is restored meanwhile.
RETENTION_S = 5
_ROOT = Path(__file__).resolve().parents[1]
_RESTART_S = 0.2  # how soon a program that ended is started again
# Below the kernel's own, or a client that tries a dead one could end up connected to itself.
_PORTS = range(20_000, 32_000)


class Stand:
    """Started as a context manager; ends everything it started. A program that ends, for whatever
    reason, is started again at once, as an orchestrator would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis = Valkey(folder)
        # No fsync: what a killed process wrote is safe with the kernel; no fault cuts its power.
        self.postgres = Postgres(folder, fsync=False)
        self.gateway: Process
        self.ledgers: list[Process] = []
        self.links: dict[str, Relay] = {}
        self.token = ""
        self._clock = folder / "gateway-clock"
        self._stack = AsyncExitStack()
        self._keepers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        for server in (self.redis, self.postgres):
            self._stack.push_async_callback(server.stop)
            await server.start()
        await migrate.migrate(self.postgres.url)
        sql = await db.connect(self.postgres.url)
        await loops.check_partitions(sql, PARTITIONS)
        await sql.close()
        key = dev_key(self.folder)
        self.token = mint(key, "service")
        gateway_port = _free_port()
        targets = {
            "gateway": f"http://{HOST}:{gateway_port}",
            "redis": self.redis.url,
            "postgres": self.postgres.url,
        }
        for name in LINKS:
            relay = Relay(targets[name.partition("-")[2]], _free_port())
            self.links[name] = await self._stack.enter_async_context(relay)
        self.set_gateway_clock_off(0)
        off_clock = {"PYTHONPATH": f"{_ROOT / 'chaos' / 'clock'}:{_ROOT}"}
        more = {"GATEWAY_WORKERS": "2", "CHAOS_CLOCK": str(self._clock), **off_clock}
        self.gateway = self._program("gateway", "gateway", more, gateway_port)
        self.ledgers = [self._program("ledger", name) for name in ("ledger-1", "ledger-2")]
        self._stack.push_async_callback(self._end_programs)
        for one in self.programs:
            await one.start()
            self._keepers.append(asyncio.create_task(_keep(one)))

    def set_gateway_clock_off(self, seconds: int) -> None:
        """From its next start on."""
        self._clock.write_text(str(seconds))

    @property
    def programs(self) -> list[Process]:
        return [self.gateway, *self.ledgers]

    @property
    def url(self) -> str:
        """Where clients find the gateway: behind a relay."""
        return self.links["clients-gateway"].url

    def _program(
        self,
        package: str,
        name: str,
        more: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> Process:
        """A program of ours, behind the relays that are named after it."""
        environ = {
            "BILLING_DATA_DIR": str(self.folder),
            "REDIS_URL": self.links[f"{package}-redis"].url,
            "DATABASE_URL": self.links[f"{package}-postgres"].url,
            "PARTITIONS": str(PARTITIONS),
            "STREAM_RETENTION_SECONDS": str(RETENTION_S),
            "LOG_LEVEL": "warning",
            **(more or {}),
        }
        return program(
            package, environ, folder=self.folder, cores=frozenset(), port=port, name=name
        )

    async def _end_programs(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for one in self.programs:
            one.kill()
            await one.wait()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[System]:
        """Our own connections to both servers, past the relays; new ones each time, because faults
        end them like all others."""
        redis = RedisConnection(self.redis.url)
        try:
            sql = await db.connect(self.postgres.url, patient=True)
            try:
                yield System(sql, redis, Scripts(redis))
            finally:
                with suppress(*db.UNAVAILABLE):
                    await sql.close(timeout=1)
        finally:
            await redis.close()


async def _keep(child: Child) -> None:
    while True:
        await child.wait()
        await asyncio.sleep(_RESTART_S)
        with suppress(StartError):
            await child.start()


def _free_port() -> int:
    while True:
        port = random.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


def children(pid: int) -> list[int]:
    """Processes that a process has started and that still run."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(one) for one in text.split()]


def send(pid: int, number: int) -> None:
    """A signal to a process that may have ended meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
