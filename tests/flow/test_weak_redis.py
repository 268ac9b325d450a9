"""Redis stops keeping what is recorded: 503 before the first write, until it is put right. The
gateway is never restarted."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from bench.relay import Relay
from gateway.dev.servers import Valkey
from ledger import durability
from ledger.settings import Settings
from lua.connection import RedisConnection
from tests.auth_fake.production import in_production
from tests.conftest import Service, Services
from tests.flow.invariants import Told, check

USERS = [str(UUID(int=number)) for number in range(1, 4)]  # production takes no readable names
CHANGED = {"maxmemory": "0", "maxmemory-policy": "noeviction", "appendonly": "yes"}


def usage(user: str, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "usage_type": "api_calls", "quantity": 1, **more}


@pytest.fixture
async def configured(redis: RedisConnection) -> AsyncIterator[RedisConnection]:
    """A connection whose CONFIG SETs are taken back."""
    yield redis
    for name, value in CHANGED.items():
        await redis.run("CONFIG", "SET", name, value)


@pytest.fixture
async def production(
    services: Services,
    settings: Settings,
    configured: RedisConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Service]:
    """With every user's quota loaded. Redis is looked at more often than outside of tests."""
    monkeypatch.setattr(durability, "LOOK_S", 0.02)
    async with in_production(settings) as config:
        service = await services.start(config)
        await service.drained()
        await until_ready(service)
        assert [one["status"] for one in await batch(service)] == [201] * len(USERS)
        yield service


async def batch(service: Service) -> list[dict[str, Any]]:
    records = {"records": [usage(user) for user in USERS]}
    status, said, _ = await service.post("/usage/batch", records, headers=service.token())
    assert status == 200
    results: list[dict[str, Any]] = said["results"]
    return results


async def ready(service: Service) -> tuple[int, dict[str, Any]]:
    async with service.http.get(f"{service.url}/readyz") as response:
        return response.status, await response.json()


async def until_ready(service: Service) -> None:
    async with asyncio.timeout(20):
        while True:
            if (await ready(service))[1]["status"] == "ready":
                return
            await asyncio.sleep(0.02)


async def contents(redis: RedisConnection) -> dict[bytes, bytes]:
    return {key: await redis.run("DUMP", key) for key in await redis.run("KEYS", "*")}


async def refused(service: Service, reason: str) -> None:
    """Not ready, for this reason; nothing is recorded, not even in part."""
    before = await contents(service.redis)
    status, said = await ready(service)
    assert (status, said["status"]) == (503, "unready")
    assert reason in str(said["reasons"])
    for one in await batch(service):
        assert (one["status"], one["outcome"]) == (503, "not_recorded")
    status, said, headers = await service.post("/usage", usage(USERS[0]), headers=service.token())
    assert (status, said["outcome"]) == (503, "not_recorded")
    assert int(headers["Retry-After"]) >= 1
    assert await contents(service.redis) == before


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("maxmemory", "1", "maxmemory is reached"),
        ("maxmemory-policy", "allkeys-lru", "may evict"),
        ("appendonly", "no", "appendonly is off"),
    ],
)
async def test_a_setting_changed_at_run_time_stops_usage_until_it_is_put_right(
    production: Service, name: str, value: str, reason: str
) -> None:
    await production.redis.run("CONFIG", "SET", name, value)
    await refused(production, reason)
    await production.redis.run("CONFIG", "SET", name, CHANGED[name])
    await until_ready(production)
    assert [one["status"] for one in await batch(production)] == [201] * len(USERS)
    await production.drained()
    await check(production)
    assert await production.sql.fetchval("SELECT COUNT(*) FROM usage_records") == 2 * len(USERS)


async def test_a_weaker_redis_is_seen_without_anybody_asking(production: Service) -> None:
    request = usage(USERS[0])
    await production.redis.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    async with asyncio.timeout(20):
        while (await production.post("/usage", request, headers=production.token()))[0] == 201:
            pass
    await production.redis.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
    async with asyncio.timeout(20):
        while (await production.post("/usage", request, headers=production.token()))[0] != 201:
            pass


async def test_production_takes_nothing_from_a_redis_that_was_not_judged(
    services: Services,
    settings: Settings,
    redis: RedisConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor from one that comes back: it may be another one."""

    async def never(_: durability.Watch) -> None: ...

    monkeypatch.setattr(durability.Watch, "for_ever", never)  # only /readyz looks
    async with in_production(settings) as config, Relay(settings.redis_url) as relay:
        service = await services.start(msgspec.structs.replace(config, redis_url=relay.url))
        await service.drained()

        async def record() -> tuple[int, str]:
            answer = await service.post("/usage", usage(USERS[0]), headers=service.token())
            return answer[0], answer[1].get("detail", "")

        for _ in range(2):
            status, detail = await record()
            assert status == 503
            assert "DURABILITY" in detail
            assert (await ready(service))[0] == 200
            assert (await record())[0] == 201
            await relay.cut()
            assert (await ready(service))[0] == 503
            await relay.restore()


class SmallDisk(Valkey):
    """A server whose files can be made too small: a write beyond the limit fails as it does on a
    full disk, once the signal that comes with it is ignored."""

    async def _serve(self, log: int) -> None:
        command = f"trap '' XFSZ; exec {self._program} redis.conf"
        await self._launch(["/bin/sh", "-c", command], cwd=self.folder, output=log)

    def leave(self, room: int) -> None:
        """So many bytes may be added to the append-only file."""
        [file] = self.folder.rglob("*.incr.aof")
        limits = (file.stat().st_size + room, resource.RLIM_INFINITY)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, limits)

    def enlarge(self) -> None:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, unlimited)


async def test_a_full_disk_ends_a_redis_that_syncs_always_and_nothing_is_half_written(
    services: Services, settings: Settings, tmp_path: Path
) -> None:
    """It cannot take back what it did in memory, so it ends; what was torn is not read again."""
    async with SmallDisk(tmp_path / "disk") as server:
        service = await services.start(msgspec.structs.replace(settings, redis_url=server.url))
        told = Told()
        assert told.heard(await service.post("/usage", usage("ada"))) == 201
        server.leave(room=100)
        request = usage("ada", idempotency_key="torn")
        answer = await service.post("/usage", request)
        assert (told.heard(answer), answer[1]["outcome"]) == (503, "unknown")
        assert await server.wait() == 1
        assert (await ready(service))[0] == 503
        answer = await service.post("/usage", request)
        assert (told.heard(answer), answer[1]["outcome"]) == (503, "not_recorded")
        await server.start()  # as its supervisor would, with room again
        async with asyncio.timeout(20):
            while (await ready(service))[0] != 200:
                await service.drained()
        answer = await service.post("/usage", request)
        assert told.heard(answer) == 201
        assert answer[1]["quota_remaining"] == 9998
        assert "Idempotent-Replayed" not in answer[2]
        told.unknown = 0  # it was asked again until it was acknowledged
        await service.drained()
        await check(service, told)


async def test_a_full_disk_stops_usage_where_redis_syncs_every_second(
    services: Services, settings: Settings, tmp_path: Path
) -> None:
    async with SmallDisk(tmp_path / "disk", fsync="everysec") as server:
        service = await services.start(
            msgspec.structs.replace(settings, redis_url=server.url, durability="dev-fast")
        )
        told = Told()
        assert told.heard(await service.post("/usage", usage("ada"))) == 201
        server.leave(room=100)
        async with asyncio.timeout(20):  # Redis tells the first failure after it has answered
            while told.heard(answer := await service.post("/usage", usage("ada"))) == 201:
                pass
        assert answer[1]["outcome"] == "not_recorded"
        status, said = await ready(service)
        assert (status, said["status"]) == (503, "unready")
        assert "cannot be written" in str(said["reasons"])
        server.enlarge()
        await service.drained()
        await until_ready(service)
        assert told.heard(await service.post("/usage", usage("ada"))) == 201
        await service.drained()
        await check(service, told)
