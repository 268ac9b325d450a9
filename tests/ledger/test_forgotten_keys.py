"""Keys that Redis forgot while somebody waited."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.domain.ids import dev_uuid
from ledger.entitlements import Loader
from ledger.recovery import recover
from lua.keys import Account, partition_of
from tests.conftest import Service

RECORD = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1, "idempotency_key": "k"}


async def test_a_key_is_looked_up_again_after_a_wait_in_which_redis_lost_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt has been told that its key is unknown, and waits for its quota. Its retry
    is recorded and drained, and Redis loses its receipt: the first must not count again."""
    partition = partition_of(Account(dev_uuid("ada"), None).who, service.settings.partitions)
    load = Loader.load
    retried: list[tuple[int, Any, dict[str, str]]] = []
    waited: list[bytes] = []

    async def lose_everything() -> None:
        await service.redis.run("FLUSHALL")
        await recover(service.sql, service.scripts, partition)

    async def slow(self: Loader, partition: int, who: bytes, *more: Any) -> None:
        waited.append(who)
        if len(waited) == 1:
            retried.append(await service.post("/usage", RECORD))
            await service.drained()
            await lose_everything()
        await load(self, partition, who, *more)

    await service.post("/usage", {**RECORD, "idempotency_key": "other"})
    await service.drained()
    await lose_everything()
    monkeypatch.setattr(Loader, "load", slow)
    status, said, headers = await service.post("/usage", RECORD)
    [(retried_status, recorded, _)] = retried
    assert (status, retried_status) == (201, 201)
    assert headers["Idempotent-Replayed"] == "true"
    assert said["recorded_at"] == recorded["recorded_at"]
    await service.drained()
    assert await service.sql.fetchval("SELECT COUNT(*) FROM usage_refunds") == 0
    assert await service.sql.fetchval("SELECT COUNT(*) FROM usage_records") == 2
