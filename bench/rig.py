"""Everything that runs during one benchmark: real servers, the gateway, the ledger."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg

from bench import cpus
from bench.processes import Process, free_port, program
from bench.traffic import Traffic
from gateway.dev.postgres import Postgres
from gateway.dev.servers import Valkey
from gateway.dev.tokens import dev_key, mint
from ledger import migrate
from lua import keys
from lua.connection import RedisConnection

PARTITIONS = 16
_REWRITE_POLL_S = 0.05
# The streams must hold what is recorded while the ledger rests, and be trimmed when it works.
_SETTINGS = {"UNDRAINED_CAP": "50000000", "STREAM_RETENTION_SECONDS": "0"}


class Rig:
    """Started as a context manager; ends everything it started. The ledger rests until asked for.

    `store` is the Redis of the service. `scratch` is a second one with the same settings, for
    the peers and for Redis measured alone: emptying it cannot touch the service's counts.
    """

    def __init__(self, folder: Path, plan: cpus.Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.store = Valkey(folder / "store")
        self.scratch = Valkey(folder / "scratch")
        self.postgres = Postgres(folder)
        self._stack = AsyncExitStack()
        self._gateways: list[Process] = []

    async def __aenter__(self) -> Self:
        try:
            # Inherited by all that is started; the programs under test move to their own core.
            self._stack.enter_context(cpus.pinned(self.plan.load))
            servers = (self.store, self.scratch, self.postgres)
            for server in servers:
                self._stack.push_async_callback(server.stop)
            await asyncio.gather(*(server.start() for server in servers))
            await migrate.migrate(self.postgres.url)
            self.sql: asyncpg.Connection[Any] = await asyncpg.connect(self.postgres.url)
            self._stack.push_async_callback(self.sql.close)
            self.redis = RedisConnection(self.store.url)
            self.scratch_redis = RedisConnection(self.scratch.url)
            for redis in (self.redis, self.scratch_redis):
                self._stack.push_async_callback(redis.close)
                # In the middle of a round it would be charged to that round; see `shorten`.
                await redis.run("CONFIG SET", "auto-aof-rewrite-percentage", "0")
            self.environ = {
                **_SETTINGS,
                "BILLING_DATA_DIR": str(self.folder),
                "DATABASE_URL": self.postgres.url,
                "REDIS_URL": self.store.url,
                "PARTITIONS": str(PARTITIONS),
            }
            self.token = mint(dev_key(self.folder), "service")
            self.traffic = Traffic(secrets.token_hex(4), self.token)
            self.gateway = await self.add_gateway(self.plan.server)
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

    async def add_gateway(
        self, cores: cpus.Cores, workers: int = 1, redis_url: str | None = None
    ) -> Process:
        """One more gateway, on a port of its own."""
        number = len(self._gateways) + 1
        made = program(
            "gateway",
            {
                **self.environ,
                "GATEWAY_WORKERS": str(workers),
                "REDIS_URL": redis_url or self.store.url,
            },
            folder=self.folder,
            cores=cores,
            port=free_port(),
            name=f"gateway-{number}",
        )
        self._gateways.append(made)
        await self.start(made)
        return made

    async def start(self, process: Process) -> None:
        """Starts a process that ends with the rig at the latest."""
        self._stack.push_async_callback(process.stop)
        await process.start()

    def ledger(self, cores: cpus.Cores) -> Process:
        """A ledger to be started, and stopped again."""
        return program("ledger", self.environ, folder=self.folder, cores=cores)

    async def append_only(self, on: bool) -> None:
        """Switches the append-only files of both Redis servers; returns when it has happened."""
        for redis in (self.redis, self.scratch_redis):
            await redis.run("CONFIG SET", "appendonly", "yes" if on else "no")
            await _rewritten(redis)

    async def shorten(self, redis: RedisConnection) -> None:
        """Rewrites the append-only file, between rounds: never in one, and not for ever longer."""
        await redis.run("BGREWRITEAOF")
        await _rewritten(redis)

    async def appended(self) -> tuple[int, int]:
        """Stream entries ever made, and how many of them the ledger has drained."""
        pipeline = self.redis.client.pipeline(transaction=True)  # a trim between would show twice
        for partition in range(PARTITIONS):
            pipeline.hmget(keys.meta(partition), "drained", "retained")
            pipeline.xlen(keys.stream(partition))
        said = await pipeline.execute()
        drained = sum(int(one or 0) for one, _ in said[::2])
        retained = sum(int(one or 0) for _, one in said[::2])
        return drained + sum(said[1::2]) - retained, drained


async def _rewritten(redis: RedisConnection) -> None:
    rewriting = True
    while rewriting:
        await asyncio.sleep(_REWRITE_POLL_S)
        state = await redis.run("INFO", "persistence")
        rewriting = bool(state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])
