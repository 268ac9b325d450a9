"""The database is lost and an older backup takes its place: Redis brings back the rest, or it is
said what it can no longer bring back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from ledger import db, store
from ledger.settings import Settings
from lua.connection import RedisConnection
from tests.backup.conftest import Operator
from tests.conftest import Services
from tests.flow.invariants import Told, check

Answer = tuple[int, Any, dict[str, str]]


class Installation:
    """Gateway and ledger over one Redis and one database, stopped and started again."""

    def __init__(self, settings: Settings, operator: Operator) -> None:
        self.settings, self.operator = settings, operator
        self.told = Told()
        self._running = AsyncExitStack()

    async def start(self) -> None:
        connection = await db.connect(self.settings.database_url)
        self._running.push_async_callback(connection.close)
        services = Services(self.settings, connection)
        self._running.push_async_callback(services.stop)
        self.service = await services.start()

    async def stop(self) -> None:
        await self._running.aclose()

    async def use(self, *users: str, times: int = 1, **more: Any) -> None:
        """Records usage of each user, alone and in an organisation, and drains it."""
        for _ in range(times):
            for user in users:
                for organization in ({}, {"organization_id": "clinic"}):
                    body = {"user_id": user, "usage_type": "api_calls", "quantity": 1}
                    answer = await self.service.post("/usage", body | organization | more)
                    assert self.told.heard(answer) == 201
        await self.service.drained()

    async def lose_the_database(self) -> None:
        await self.stop()
        name = self.operator.database
        await self.operator.sql(f"DROP DATABASE {name}", database="postgres")


@pytest.fixture
def retention_s() -> int:
    return 600


@pytest.fixture
async def installation(
    settings: Settings, operator: Operator, redis: RedisConnection, retention_s: int
) -> AsyncIterator[Installation]:
    config = msgspec.structs.replace(settings, stream_retention_seconds=retention_s)
    operator.url = config.database_url
    found = Installation(config, operator)
    await found.start()
    yield found
    await found.stop()


async def test_what_came_after_the_backup_is_drained_again_from_redis(
    installation: Installation, operator: Operator
) -> None:
    await installation.use("ada", "bob", times=3)
    await operator.done("backup", "--to", operator.archive)
    keyed = {"user_id": "ada", "usage_type": "api_calls", "quantity": 2, "idempotency_key": "k"}
    first = await installation.service.post("/usage", keyed)
    assert installation.told.heard(first) == 201
    await installation.use("ada", "eve", times=3)  # eve is new since
    lost = await installation.service.sql.fetch("SELECT * FROM usage_records ORDER BY usage_id")
    await installation.lose_the_database()

    said = await operator.done("restore", operator.archive)
    assert "12 records sealed" in said

    await installation.start()
    service = installation.service
    assert await service.sql.fetchval("SELECT COUNT(*) FROM usage_records") == 12
    # Before the ledger has caught up: what is loaded counts what is not in the database yet.
    await service.redis.run("DEL", *await service.redis.run("KEYS", "quota:*"))
    await check(service, installation.told)
    again = await service.post("/usage", keyed)
    assert (again[1], again[2]["Idempotent-Replayed"]) == (first[1], "true")
    await service.drained()

    rows = await service.sql.fetch("SELECT * FROM usage_records ORDER BY usage_id")
    assert [_said(row) for row in rows] == [_said(row) for row in lost]
    assert {row["usage_id"] for row in rows} == installation.told.acked
    await installation.use("ada", "bob", "eve")
    await check(service, installation.told)
    await _undrained_is_none(installation)


@pytest.mark.parametrize("retention_s", [0])
async def test_what_redis_no_longer_has_stops_its_partitions_and_is_said(
    installation: Installation, operator: Operator
) -> None:
    await installation.use("ada", times=2)
    await operator.done("backup", "--to", operator.archive)
    for _ in range(3):  # each one lets go of what was drained before it
        await installation.use("ada")
    await installation.lose_the_database()
    await operator.done("restore", operator.archive)
    await installation.start()
    service = installation.service
    before = await store.cursors(service.sql)
    with capture_logs() as logs:
        assert await service.drained() == 0
    stopped = [one for one in logs if one["event"] == "partition_stopped"]
    assert {one["partition"] for one in stopped} == {one.partition for one in before if one.drained}
    assert all("Redis has only what came after" in one["reason"] for one in stopped)
    assert await store.cursors(service.sql) == before
    async with service.http.get(f"{service.url}/readyz") as response:
        assert "usage in between is missing" in str((await response.json())["reasons"])
    body = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}
    assert (await service.post("/usage", body))[0] == 201
    # Cold accounts of the partition wait: what they have used is not known.
    await service.redis.run("DEL", *await service.redis.run("KEYS", "quota:*"))
    assert (await service.post("/usage", body))[0] == 503


def _said(row: Any) -> dict[str, Any]:
    # Batches may be cut otherwise, and positions with them.
    return {name: value for name, value in row.items() if name != "position"}


async def _undrained_is_none(installation: Installation) -> None:
    async with installation.service.http.get(f"{installation.service.url}/readyz") as response:
        said = await response.json()
    assert (said["status"], said["ledger_lag"]) == ("ready", 0)
