"""The real service, and a faulty way to it.

One service serves a whole module; tests keep apart by their users.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from gateway.client import Retrying
from gateway.dev.postgres import Postgres
from gateway.dev.servers import Valkey
from ledger import db
from ledger.domain.ids import dev_uuid
from ledger.settings import Settings
from lua.connection import RedisConnection
from tests.client.faults import FaultProxy
from tests.conftest import Service, Services

HASTY = Retrying(deadline_seconds=60, first_pause_seconds=0.001, longest_pause_seconds=0.01)
"""Patient, but with pauses that do not slow a test."""

_users = count(1)


@pytest.fixture(scope="module")
async def service(
    postgres: Postgres,
    valkey: Valkey,
    _numbers: Iterator[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Service]:
    name = f"client_{next(_numbers)}"
    parts = urlsplit(postgres.url)
    admin = await asyncpg.connect(urlunsplit(parts._replace(path="/postgres")))
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE billing")
    await admin.close()
    redis = RedisConnection(valkey.url)
    await redis.run("FLUSHALL")
    await redis.close()
    settings = Settings(
        database_url=urlunsplit(parts._replace(path=f"/{name}")),
        redis_url=valkey.url,
        data_dir=tmp_path_factory.mktemp("data"),
        partitions=4,
        port=0,
    )
    connection = await db.connect(settings.database_url)
    services = Services(settings, connection)
    yield await services.start()
    await services.stop()
    await connection.close()


@pytest.fixture
async def proxy(service: Service) -> AsyncIterator[FaultProxy]:
    started = FaultProxy(service.url)
    await started.start()
    yield started
    await started.close()


@pytest.fixture
def user() -> str:
    """A user of this test's own."""
    return f"user{next(_users)}"


async def used(service: Service, user: str, usage_type: str = "api_calls") -> int:
    """What the service counts for a user, asked without the client."""
    _, said, _ = await service.get(f"/quota/{user}")
    [found] = [one["used"] for one in said["quotas"] if one["usage_type"] == usage_type]
    return int(found)


async def rows(service: Service, *users: str) -> dict[str, str]:
    """The ledger's usage id of every idempotency key of these users; a key twice is an error."""
    await service.drained()
    found = await service.sql.fetch(
        "SELECT idempotency_key, usage_id FROM usage_records WHERE user_id = ANY($1)",
        [dev_uuid(user) for user in users],
    )
    assert len({row["idempotency_key"] for row in found}) == len(found)
    return {row["idempotency_key"]: str(row["usage_id"]) for row in found}
