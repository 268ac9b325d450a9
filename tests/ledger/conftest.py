from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ledger import db, loops
from ledger.drain import Drain
from lua.connection import RedisConnection
from lua.scripts import Scripts
from tests.ledger.stream import Partition

RETENTION_S = 600


@pytest.fixture
async def scripts(redis: RedisConnection) -> Scripts:
    return Scripts(redis)


@pytest.fixture
async def drain(connection: db.Connection, scripts: Scripts) -> Drain:
    return Drain(connection, scripts, RETENTION_S)


@pytest.fixture
async def partition(
    connection: db.Connection, redis: RedisConnection, drain: Drain
) -> AsyncIterator[Partition]:
    """The only partition of a fresh ledger, vouched for and empty."""
    await loops.check_partitions(connection, 1)
    found = Partition(redis, connection)
    await drain.run_once([0])
    await found.synchronise()
    yield found


@pytest.fixture
async def postgres_pool(database_url: str) -> AsyncIterator[db.Pool]:
    async with db.pool(database_url, 4) as opened:
        yield opened
