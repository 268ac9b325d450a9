"""/livez, /readyz and /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import msgspec
import pytest

from gateway import backlog
from gateway.dev.servers import Valkey
from ledger import store
from ledger.domain.ids import dev_uuid
from ledger.reconcile.findings import Finding
from ledger.settings import Settings
from lua import keys
from lua.connection import RedisConnection
from tests.conftest import Service, Services
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


async def metric(service: Service, name: str) -> float:
    """Its value; 0 before it was first counted."""
    async with service.http.get(f"{service.url}/metrics") as response:
        for line in (await response.text()).splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
    return 0.0


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
    assert said["durability"] == {"wanted": "default", "in_force": "default"}


async def test_it_says_how_far_the_ledger_is_behind(service: Service) -> None:
    await service.drained()
    for _ in range(3):
        usage = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}
        await service.post("/usage", usage)
    assert (await ready(service))[1]["ledger_lag"] == 3
    await service.drained()
    assert (await ready(service))[1]["ledger_lag"] == 0


async def test_a_partition_that_nobody_drains_is_a_reason_however_little_waits(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.drained()
    usage = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}
    await service.post("/usage", usage)
    assert (await ready(service))[1]["status"] == "ready"
    assert (await ready(service))[1]["status"] == "ready"
    monkeypatch.setattr(backlog, "STALLED_S", 0)
    status, said = await ready(service)
    assert (status, said["status"]) == (200, "degraded")
    who = keys.Account(dev_uuid("ada"), None).who
    partition = keys.partition_of(who, service.settings.partitions)
    assert f"partitions {partition} are not drained at all" in str(said["reasons"])
    await service.drained()
    await service.post("/usage", usage)
    assert (await ready(service))[1]["status"] == "ready"  # it has moved since


async def test_it_warns_at_half_of_the_cap_and_says_when_a_partition_takes_no_more(
    services: Services, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    service = await services.start(msgspec.structs.replace(settings, undrained_cap=4))
    await service.drained()
    usage = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}
    said = {}
    for recorded in range(1, 5):
        assert (await service.post("/usage", usage))[0] == 201
        _, said[recorded] = await ready(service)
        assert await metric(service, "billing_backlog_ratio") == recorded / 4
    assert (said[1]["status"], said[1].get("reasons", [])) == ("ready", [])
    assert said[2]["status"] == "degraded" and "half full" in str(said[2]["reasons"])
    assert said[3] == said[2] | {"ledger_lag": 3}
    assert said[4]["status"] == "degraded" and "take no usage" in str(said[4]["reasons"])
    assert (await service.post("/usage", usage))[0] == 503
    await service.drained()
    assert (await ready(service))[1]["status"] == "ready"
    assert (await service.post("/usage", usage))[0] == 201
    assert await metric(service, "billing_backlog_ratio") == 0
    logged = [one for one in capsys.readouterr().out.splitlines() if " backlog " in one]
    assert [("half full" in one, "take no usage" in one) for one in logged] == [
        (True, False),
        (False, True),
        (False, False),
    ]


async def test_it_says_where_a_restored_database_has_a_gap(service: Service) -> None:
    await service.drained()
    assert (await ready(service))[1]["status"] == "ready"
    await service.redis.run("HSET", keys.meta(2), "floor", "1-0")  # the cursor is still at 0-0
    status, said = await ready(service)
    assert (status, said["status"], said["postgres"]) == (200, "degraded", "up")
    assert "usage in between is missing: partitions 2 are" in str(said["reasons"])


@pytest.mark.parametrize(
    ("name", "value", "word", "in_force"),
    [
        ("appendfsync", "everysec", "appendfsync", "dev-fast"),
        ("maxmemory-policy", "allkeys-lru", "evict", "none"),
        ("maxmemory-policy", "volatile-ttl", "evict", "none"),
        ("appendonly", "no", "appendonly", "none"),
    ],
)
async def test_a_weaker_redis_is_reported(
    service: Service,
    configured: RedisConnection,
    name: str,
    value: str,
    word: str,
    in_force: str,
) -> None:
    await service.drained()
    await configured.run("CONFIG", "SET", name, value)
    _, said = await ready(service)
    assert said["status"] == "degraded"
    assert word in str(said["reasons"])
    assert said["durability"] == {"wanted": "default", "in_force": in_force}
    assert await metric(service, f'billing_durability_in_force{{profile="{in_force}"}}') == 1
    assert await metric(service, 'billing_durability_in_force{profile="default"}') == 0
    assert await metric(service, "billing_durability_weaknesses") == 1
    default = {"appendfsync": "always", "maxmemory-policy": "noeviction", "appendonly": "yes"}
    await configured.run("CONFIG", "SET", name, default[name])
    async with asyncio.timeout(10):
        while True:  # a file that was off counts after its first rewrite
            if (await ready(service))[1]["status"] == "ready":
                break
            await asyncio.sleep(0.02)
    assert await metric(service, 'billing_durability_in_force{profile="default"}') == 1
    assert await metric(service, "billing_durability_weaknesses") == 0


async def test_what_the_setting_does_not_ask_for_is_not_missed(
    services: Services, settings: Settings, configured: RedisConnection
) -> None:
    await configured.run("CONFIG", "SET", "appendfsync", "everysec")
    fast = await services.start(msgspec.structs.replace(settings, durability="dev-fast"))
    await fast.drained()
    _, said = await ready(fast)
    assert (said["status"], said.get("reasons", [])) == ("ready", [])
    assert said["durability"] == {"wanted": "dev-fast", "in_force": "dev-fast"}


async def test_a_server_that_does_not_let_us_ask_is_not_assumed_to_be_safe(
    services: Services, settings: Settings, redis: RedisConnection
) -> None:
    """As managed servers do: everything but CONFIG."""
    await redis.run("ACL SETUSER", "managed", "on", ">word", "~*", "+@all", "-config")
    parts = urlsplit(settings.redis_url)
    url = urlunsplit(parts._replace(netloc=f"managed:word@{parts.hostname}:{parts.port}"))
    service = await services.start(msgspec.structs.replace(settings, redis_url=url))
    await service.drained()
    _, said = await ready(service)
    assert said["durability"] == {"wanted": "default", "in_force": "unknown"}
    assert said["status"] == "degraded"
    assert "cannot be checked" in str(said["reasons"])
    await redis.run("ACL DELUSER", "managed")


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
    # Routes have names with "organization" in them; nobody's organisation has one here.
    ids = [said["usage_id"], str(dev_uuid("named-user")), str(dev_uuid("named-clinic"))]
    words = ["user_id", "organization_id", "organization=", "named", *ids]
    assert not [word for word in words if word in text]


async def test_a_replay_is_not_counted_twice_in_the_metrics(service: Service) -> None:
    counter = 'billing_usage_total{usage_type="feature_uses"}'
    before = await metric(service, counter)
    usage = {
        "user_id": "ada",
        "usage_type": "feature_uses",
        "quantity": 2,
        "idempotency_key": "k",
    }
    for _ in range(3):
        await service.post("/usage", usage)
    assert await metric(service, counter) == before + 2


async def note(service: Service, found: list[Finding]) -> None:
    look = await store.claim_reconcile(service.sql, 0, None)
    assert look is not None
    await store.note_reconcile(service.sql, look, 0, found, completed=True)


async def test_a_partition_that_reconcile_does_not_get_through_is_a_reason_and_a_metric(
    service: Service,
) -> None:
    await service.drained()
    assert (await ready(service))[1]["status"] == "ready"
    await service.sql.execute(
        "UPDATE reconcile_state SET checked_at = NOW() - INTERVAL '1 hour' WHERE partition = 2"
    )
    assert await store.claim_reconcile(service.sql, 2, None) is not None  # begun, and no more
    status, said = await ready(service)
    assert (status, said["status"]) == (200, "degraded")
    assert "reconcile has not compared partitions 2 for more than 5 minutes" in str(said["reasons"])
    assert await metric(service, "billing_reconcile_age_seconds") >= 3600
    await service.sql.execute("UPDATE reconcile_state SET checked_at = NOW()")
    assert (await ready(service))[1]["status"] == "ready"


async def test_an_open_dead_letter_is_a_reason_and_a_metric(service: Service) -> None:
    await service.drained()
    insert = "INSERT INTO dead_letters (partition, stream_id, entry, reason, status) VALUES "
    await service.sql.execute(insert + "(0, '1-0', '{}', 'x', 'open')")
    await service.sql.execute(insert + "(0, '2-0', '{}', 'x', 'discarded')")
    status, said = await ready(service)
    assert (status, said["status"]) == (200, "degraded")
    assert said["reasons"] == ["dead letters wait: 1; ./run dead-letters list"]
    assert await metric(service, "billing_dead_letters") == 1
    await service.sql.execute("UPDATE dead_letters SET status = 'discarded'")
    assert (await ready(service))[1]["status"] == "ready"
    assert await metric(service, "billing_dead_letters") == 0


async def test_what_reconcile_found_is_a_reason_and_a_metric(service: Service) -> None:
    await service.drained()
    found = [Finding("I3", "a"), Finding("I3", "b"), Finding("I3", "c", repaired=True)]
    await note(service, found)
    status, said = await ready(service)
    assert (status, said["status"]) == (200, "degraded")
    assert "reconcile found 2 disagreements" in str(said["reasons"])
    async with service.http.get(f"{service.url}/metrics") as response:
        exposed = await response.text()
    assert 'billing_reconcile_findings{invariant="I3"} 3.0' in exposed
    assert 'billing_reconcile_findings{invariant="I2"} 0.0' in exposed
    await note(service, [])
    assert (await ready(service))[1]["status"] == "ready"
