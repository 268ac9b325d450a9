"""What tests here share: one service for many small requests, and the desk of corrections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from gateway.dev.postgres import Postgres
from gateway.dev.servers import Valkey
from ledger import db
from ledger.settings import Settings
from lua.connection import RedisConnection
from tests.conftest import Service, Services
from tests.flow.invariants import check
from tests.gateway.desk import Desk


@pytest.fixture(scope="module")
async def shared(
    postgres: Postgres,
    valkey: Valkey,
    _numbers: Iterator[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Service]:
    """One service, database and empty Redis for the whole module. A module that uses this must
    not use the per-test fixtures: they empty Redis."""
    settings = await fresh(postgres, valkey, next(_numbers), tmp_path_factory.mktemp("data"))
    async with serving_alone(settings) as service:
        yield service


async def fresh(postgres: Postgres, valkey: Valkey, number: int, data_dir: Path) -> Settings:
    """The settings of a service with a database of its own and an empty Redis."""
    name = f"shared_{number}"
    parts = urlsplit(postgres.url)
    admin = await asyncpg.connect(urlunsplit(parts._replace(path="/postgres")))
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE billing")
    await admin.close()
    redis = RedisConnection(valkey.url)
    await redis.run("FLUSHALL")
    await redis.close()
    return Settings(
        database_url=urlunsplit(parts._replace(path=f"/{name}")),
        redis_url=valkey.url,
        data_dir=data_dir,
        partitions=4,
        port=0,
    )


@asynccontextmanager
async def serving_alone(settings: Settings) -> AsyncIterator[Service]:
    connection = await db.connect(settings.database_url)
    services = Services(settings, connection)
    service = await services.start()
    await service.drain.run_once(range(settings.partitions))
    yield service
    await services.stop()
    await connection.close()


@pytest.fixture
async def desk(service: Service) -> AsyncIterator[Desk]:
    made = Desk(service)
    yield made
    await service.drained()
    if made.is_checked:
        await check(service)
