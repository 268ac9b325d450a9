"""/livez, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.dev.servers import Valkey
from lua import keys
from lua.connection import RedisConnection
from tests.conftest import Service
from tests.ledger.plans import allows, on_plan


@pytest.fixture
async def configured(valkey: Valkey, service: Service) -> AsyncIterator[RedisConnection]:
    """A connection whose CONFIG SETs are taken back."""
    yield service.redis
    for name, value in [
        ("appendfsync", "always"),
        ("maxmemory-policy", "noeviction"),
        ("appendonly", "yes"),
    ]:
        await service.redis.run("CONFIG", "SET", name, value)


async def ready(service: Service) -> tuple[int, dict[str, object]]:
    async with service.http.get(f"{service.url}/readyz") as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def test_it_is_alive_before_anything_else(service: Service) -> None:
    async with service.http.get(f"{service.url}/livez") as response:
        assert response.status == 200


async def test_it_is_ready_once_the_ledger_has_vouched_for_redis(service: Service) -> None:
    status, said = await ready(service)
    assert (status, said["status"]) == (503, "unready")
    assert "vouched" in str(said["reasons"])
    await service.drained()
    status, said = await ready(service)
    assert (status, said["status"], said["redis"], said["postgres"]) == (200, "ready", "up", "up")
    assert "reasons" not in said or said["reasons"] == []
    assert said["durability"] == {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
    }


async def test_it_says_how_far_the_ledger_is_behind(service: Service) -> None:
    await service.drained()
    for _ in range(3):
        usage = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}
        await service.post("/usage", usage)
    assert (await ready(service))[1]["ledger_lag"] == 3
    await service.drained()
    assert (await ready(service))[1]["ledger_lag"] == 0


async def test_it_says_where_a_restored_database_has_a_gap(service: Service) -> None:
    await service.drained()
    assert (await ready(service))[1]["status"] == "ready"
    await service.redis.run("HSET", keys.meta(2), "floor", "1-0")  # the cursor is still at 0-0
    status, said = await ready(service)
    assert (status, said["status"], said["postgres"]) == (200, "degraded", "up")
    assert "usage in between is missing: partitions 2 are" in str(said["reasons"])


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("appendfsync", "everysec", "appendfsync"),
        ("maxmemory-policy", "allkeys-lru", "evict"),
        ("maxmemory-policy", "volatile-ttl", "evict"),
        ("appendonly", "no", "appendonly"),
    ],
)
async def test_a_weaker_redis_is_reported(
    service: Service, configured: RedisConnection, name: str, value: str, word: str
) -> None:
    await service.drained()
    await configured.run("CONFIG", "SET", name, value)
    _, said = await ready(service)
    assert said["status"] in ("degraded", "unready")
    assert word in str(said["reasons"])
    durability = said["durability"]
    assert isinstance(durability, dict) and durability[name] == value
    default = {"appendfsync": "always", "maxmemory-policy": "noeviction", "appendonly": "yes"}
    await configured.run("CONFIG", "SET", name, default[name])
    assert (await ready(service))[1]["status"] == "ready"


async def test_a_redis_that_forgot_is_not_ready(service: Service) -> None:
    await service.drained()
    await service.redis.run("FLUSHALL")
    assert (await ready(service))[0] == 503
    await service.drained()
    assert (await ready(service))[0] == 200


async def test_the_metrics_of_the_spec_are_there_and_name_nobody(service: Service) -> None:
    await on_plan(service.sql, "named-user", allows("api_calls", "1"))
    request = {
        "user_id": "named-user",
        "organization_id": "named-clinic",
        "usage_type": "api_calls",
        "quantity": 1,
        "idempotency_key": "named-key",
    }
    _, said, _ = await service.post("/usage", request)
    await service.post("/usage", {**request, "idempotency_key": "named-too"})
    async with service.http.get(f"{service.url}/metrics") as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        text = await response.text()
    for name in (
        "billing_usage_total",
        "billing_revenue_total",
        "billing_quota_exceeded_total",
        "billing_response_time_seconds",
    ):
        assert f"# TYPE {name} " in text
    assert 'billing_usage_total{usage_type="api_calls"}' in text
    assert 'billing_quota_exceeded_total{reason="denied",usage_type="api_calls"}' in text
    assert not [
        word for word in ("user_id", "organization", "named", said["usage_id"]) if word in text
    ]


async def test_a_replay_is_not_counted_twice_in_the_metrics(service: Service) -> None:
    async def counted() -> float:
        async with service.http.get(f"{service.url}/metrics") as response:
            for line in (await response.text()).splitlines():
                if line.startswith('billing_usage_total{usage_type="feature_uses"}'):
                    return float(line.split()[1])
        return 0.0

    before = await counted()
    usage = {
        "user_id": "ada",
        "usage_type": "feature_uses",
        "quantity": 2,
        "idempotency_key": "k",
    }
    for _ in range(3):
        await service.post("/usage", usage)
    assert await counted() == before + 2
