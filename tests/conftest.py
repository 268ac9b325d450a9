"""Real servers for every test: one Valkey and one Postgres per run, a fresh database per test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import uvloop
from aiohttp import ClientSession, TCPConnector

from gateway.dev import tokens as dev_tokens
from gateway.dev.postgres import Postgres
from gateway.dev.servers import Valkey
from gateway.serving import serving
from ledger import db, loops, migrate
from ledger.drain import Drain
from ledger.settings import Settings
from lua.cluster import Cluster
from lua.connection import RedisConnection
from lua.scripts import Scripts

BASE = "/api/v1/billing"


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    async with Valkey(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    async with Postgres(tmp_path_factory.mktemp("postgres"), fsync=False) as server:
        await migrate.migrate(server.url)
        yield server


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return count(1)


@pytest.fixture
async def database_url(postgres: Postgres, _numbers: Iterator[int]) -> str:
    """A database of this test's own: a copy of the migrated one."""
    name = f"test_{next(_numbers)}"
    parts = urlsplit(postgres.url)
    connection = await asyncpg.connect(urlunsplit(parts._replace(path="/postgres")))
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE billing")
    finally:
        await connection.close()
    return urlunsplit(parts._replace(path=f"/{name}"))


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[RedisConnection]:
    """A connection to an empty Redis."""
    connection = RedisConnection(valkey.url)
    await connection.run("FLUSHALL")
    yield connection
    await connection.close()


@pytest.fixture
def settings(database_url: str, valkey: Valkey, tmp_path: Path) -> Settings:
    return Settings(
        database_url=database_url,
        redis_url=valkey.url,
        data_dir=tmp_path,
        partitions=4,
        port=0,
    )


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[db.Connection]:
    opened = await db.connect(database_url)
    yield opened
    await opened.close()


class Service:
    """A gateway on a real socket and a ledger that drains when told to."""

    def __init__(self, url: str, settings: Settings, connection: db.Connection) -> None:
        self.url = url
        self.settings = settings
        self.sql = connection
        self.key = dev_tokens.dev_key(settings.data_dir)
        self.http = ClientSession(connector=TCPConnector(limit=0))
        self.redis = RedisConnection(settings.redis_url)
        self.servers = Cluster(settings.redis_url, RedisConnection)
        self.scripts = Scripts(self.servers)
        self.drain = Drain(connection, self.scripts, settings.stream_retention_seconds)

    def token(self, role: dev_tokens.Role = "service", **claims: Any) -> dict[str, str]:
        """The Authorization header of a fresh token."""
        return {"Authorization": f"Bearer {dev_tokens.mint(self.key, role, **claims)}"}

    async def post(
        self, path: str, json: Any = None, **options: Any
    ) -> tuple[int, Any, dict[str, str]]:
        async with self.http.post(f"{self.url}{BASE}{path}", json=json, **options) as response:
            return response.status, await response.json(content_type=None), dict(response.headers)

    async def get(self, path: str, **options: Any) -> tuple[int, Any, dict[str, str]]:
        async with self.http.get(f"{self.url}{BASE}{path}", **options) as response:
            return response.status, await response.json(content_type=None), dict(response.headers)

    async def drained(self) -> int:
        """Drains all that is in the stream; how many entries."""
        entries = await self._drained()
        # A gateway that looks back after a cut holds a partition for a moment: it was left out.
        await self.sql.fetch("SELECT partition FROM stream_cursor FOR UPDATE")
        return entries + await self._drained()

    async def _drained(self) -> int:
        entries = 0
        while batch := await self.drain.run_once(range(self.settings.partitions)):
            entries += batch
        return entries

    async def close(self) -> None:
        await self.http.close()
        await self.servers.close()
        await self.redis.close()


class Services:
    """Starts gateways with the settings a test asks for."""

    def __init__(self, settings: Settings, connection: db.Connection) -> None:
        self._settings = settings
        self._connection = connection
        self._running = AsyncExitStack()

    async def start(self, settings: Settings | None = None) -> Service:
        config = settings or self._settings
        await loops.check_partitions(self._connection, config.partitions)
        key = dev_tokens.dev_key(config.data_dir)
        port = await self._running.enter_async_context(serving(config, key))
        service = Service(f"http://{config.host}:{port}", config, self._connection)
        self._running.push_async_callback(service.close)
        return service

    async def stop(self) -> None:
        await self._running.aclose()


@pytest.fixture
async def services(
    settings: Settings, connection: db.Connection, redis: RedisConnection
) -> AsyncIterator[Services]:
    started = Services(settings, connection)
    yield started
    await started.stop()


@pytest.fixture
async def service(services: Services) -> Service:
    return await services.start()
