"""DURABILITY=replicated: nobody is told yes before a replica has synced it; real servers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from gateway.dev.replication import Primary, Replica
from gateway.dev.servers import Valkey
from ledger.recovery import Superseded
from ledger.settings import Settings
from lua import keys, replicated
from lua.connection import RedisConnection
from lua.scripts import Scripts
from lua.types import Fenced
from tests.conftest import Service, Services
from tests.flow.invariants import Told, check
from tests.ledger.plans import allows, on_plan

ASKS_MS = (1, 10, 140)  # a replica that is stopped is waited for in vain


def usage(user: str, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "usage_type": "api_calls", "quantity": 1, **more}


class Pair(NamedTuple):
    primary: Primary
    replica: Replica


@asynccontextmanager
async def pair_in(folder: Path) -> AsyncIterator[Pair]:
    async with (
        Primary(folder / "primary") as primary,
        Replica(folder, primary) as replica,
    ):
        yield Pair(primary, replica)


@pytest.fixture(scope="module")
async def lasting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with pair_in(tmp_path_factory.mktemp("pair")) as pair:
        yield pair


@pytest.fixture
async def pair(lasting: Pair) -> AsyncIterator[Pair]:
    """A primary and its replica, empty."""
    redis = RedisConnection(lasting.primary.url)
    await redis.run("FLUSHALL")
    yield lasting
    await redis.close()


@pytest.fixture
async def parting(tmp_path: Path) -> AsyncIterator[Pair]:
    """A pair whose replica may be promoted."""
    async with pair_in(tmp_path) as pair:
        yield pair


@pytest.fixture
def wanted(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(replicated, "ASKS_MS", ASKS_MS)
    return msgspec.structs.replace(settings, durability="replicated", durability_replicas=1)


@pytest.fixture
async def service(services: Services, wanted: Settings, pair: Pair) -> Service:
    return await on(services, wanted, pair.primary)


async def on(services: Services, wanted: Settings, server: Valkey) -> Service:
    started = await services.start(msgspec.structs.replace(wanted, redis_url=server.url))
    await until_ready(started)
    return started


async def ready(service: Service) -> tuple[int, dict[str, Any]]:
    async with service.http.get(f"{service.url}/readyz") as response:
        return response.status, await response.json()


async def until_ready(service: Service) -> None:
    async with asyncio.timeout(20):
        while True:
            await service.drained()
            if (await ready(service))[1]["status"] == "ready":
                return


@contextmanager
def stopped(server: Valkey) -> Iterator[None]:
    """The server hears and says nothing, and keeps its connections."""
    server.kill(signal.SIGSTOP)
    try:
        yield
    finally:
        server.kill(signal.SIGCONT)


async def recorded(server: Valkey, partitions: int) -> int:
    redis = RedisConnection(server.url)
    try:
        return sum([await redis.run("XLEN", keys.stream(one)) for one in range(partitions)])
    finally:
        await redis.close()


async def test_what_is_acknowledged_is_on_the_replica(service: Service, pair: Pair) -> None:
    assert (await ready(service))[1]["durability"] == {
        "wanted": "replicated",
        "in_force": "replicated",
    }
    for number in range(1, 21):
        assert (await service.post("/usage", usage(f"user-{number % 7}")))[0] == 201
        assert await recorded(pair.replica, service.settings.partitions) == number
    await service.drained()
    await check(service)


async def test_without_the_replica_the_outcome_is_unknown_and_a_retry_finds_out(
    service: Service, services: Services, wanted: Settings, pair: Pair
) -> None:
    told = Told()
    request = usage("ada", idempotency_key="k")
    other = await on(services, wanted, pair.primary)  # its connection has not written anything
    assert told.heard(await service.post("/usage", usage("ada"))) == 201
    await on_plan(service.sql, "eve", allows("api_calls", "1"))
    assert told.heard(await service.post("/usage", usage("eve"))) == 201
    with stopped(pair.replica):
        for gateway in (service, other, service):
            answer = await gateway.post("/usage", request)
            assert (told.heard(answer), answer[1]["outcome"]) == (503, "unknown")
            assert int(answer[2]["Retry-After"]) >= 1
        assert (await service.post("/usage", usage("eve")))[0] == 429  # a no needs no replica
    answer = await service.post("/usage", request)
    _, said, headers = answer
    assert (told.heard(answer), headers.get("Idempotent-Replayed")) == (201, "true")
    assert said["quota_remaining"] == 9998
    told.unknown = 0  # it was asked again until it was acknowledged
    await service.drained()
    await check(service, told)


async def test_who_only_reads_does_not_stand_behind_those_who_wait(
    services: Services, wanted: Settings, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicated, "ASKS_MS", (1, 1500))
    service = await on(services, wanted, pair.primary)
    assert (await service.post("/usage", usage("ada")))[0] == 201
    with stopped(pair.replica):
        writing = asyncio.ensure_future(service.post("/usage", usage("ada")))
        async with asyncio.timeout(20):
            while not (await service.redis.run("INFO", "clients"))["blocked_clients"]:
                pass
        assert (await service.get("/quota/ada"))[0] == 200
        assert (await service.post("/quota/check", usage("ada")))[0] == 200
        assert (await ready(service))[0] == 200
        assert not writing.done()
    await writing


async def test_a_batch_is_acknowledged_as_one_call(service: Service, pair: Pair) -> None:
    records = {"records": [usage(f"user-{number}") for number in range(100)]}
    await service.post("/usage/batch", records)
    before = await service.redis.run("INFO", "commandstats")
    _, said, _ = await service.post("/usage/batch", records)
    assert said["accepted"] == 100
    after = await service.redis.run("INFO", "commandstats")
    for name, calls in {"cmdstat_evalsha": 1, "cmdstat_waitaof": len(ASKS_MS)}.items():
        assert after[name]["calls"] - before[name]["calls"] == calls


async def test_a_forgotten_script_is_given_again_and_still_waited_for(
    service: Service, pair: Pair
) -> None:
    assert (await service.post("/usage", usage("ada")))[0] == 201
    await service.redis.run("SCRIPT FLUSH")
    assert (await service.post("/usage", usage("ada")))[0] == 201
    await service.redis.run("SCRIPT FLUSH")
    with stopped(pair.replica):
        _, said, _ = await service.post("/usage", usage("ada"))
        assert said["outcome"] == "unknown"


async def test_a_primary_whose_file_is_off_acknowledges_nothing(service: Service) -> None:
    await service.redis.run("CONFIG SET", "appendonly", "no")
    status, said, _ = await service.post("/usage", usage("ada"))
    assert (status, said["outcome"]) == (503, "unknown")
    assert (await ready(service))[1]["durability"]["in_force"] == "none"
    await service.redis.run("CONFIG SET", "appendonly", "yes")
    await until_ready(service)
    assert (await service.post("/usage", usage("ada")))[0] == 201


async def test_a_promoted_replica_carries_what_was_acknowledged_and_waits_for_the_ledger(
    services: Services, wanted: Settings, parting: Pair
) -> None:
    primary, replica = parting
    service = await on(services, wanted, primary)
    told = Told()
    for number in range(20):
        told.heard(await service.post("/usage", usage(f"user-{number % 7}")))
        if number == 9:
            await service.drained()
    with stopped(replica):
        answer = await service.post("/usage", usage("user-1", idempotency_key="k"))
        assert (told.heard(answer), answer[1]["outcome"]) == (503, "unknown")
    assert len(told.acked) == 20
    primary.kill()
    await primary.wait()

    await promote(replica, wanted)
    after = await on(services, alone(wanted), replica)
    epochs = await after.sql.fetch("SELECT DISTINCT epoch FROM stream_cursor")
    assert [row["epoch"] for row in epochs] == [1]  # nothing was lost
    assert told.heard(await after.post("/usage", usage("user-1", idempotency_key="k"))) == 201
    told.unknown = 0  # it was asked again until it was acknowledged
    await after.drained()
    await check(after, told)

    await primary.start()  # and somebody points the service at it again
    behind = await services.start(msgspec.structs.replace(alone(wanted), redis_url=primary.url))
    status, said, _ = await behind.post("/usage", usage("user-1"))
    assert (status, said["outcome"]) == (503, "not_recorded")
    assert "operator" in said["detail"]
    assert (await ready(behind))[0] == 503
    for partition in range(wanted.partitions):
        with pytest.raises(Superseded):
            await behind.drain.partition(partition)
    await check(after, told)


async def test_a_primary_that_was_left_behind_and_does_not_know_it_acknowledges_nothing(
    services: Services, wanted: Settings, parting: Pair
) -> None:
    """Its replication id is the one that was vouched for: only its replicas can tell."""
    service = await on(services, wanted, parting.primary)
    told = Told()
    assert told.heard(await service.post("/usage", usage("ada"))) == 201
    await promote(parting.replica, wanted)
    after = await on(services, alone(wanted), parting.replica)
    answer = await service.post("/usage", usage("ada"))
    assert (told.heard(answer), answer[1]["outcome"]) == (503, "unknown")
    for partition in range(wanted.partitions):
        with pytest.raises(Superseded):
            await service.drain.partition(partition)
    assert told.heard(await after.post("/usage", usage("ada"))) == 201
    await after.drained()
    await check(after, told)


def alone(wanted: Settings) -> Settings:
    """For a server that has no replica yet."""
    return msgspec.structs.replace(wanted, durability="default", durability_replicas=0)


async def promote(replica: Replica, wanted: Settings) -> None:
    """Makes it a primary, which nobody has vouched for."""
    redis = RedisConnection(replica.url)
    await redis.run("REPLICAOF", "NO", "ONE")
    for partition in range(wanted.partitions):
        with pytest.raises(Fenced):
            await Scripts(redis).read(partition, after="0-0", count=1)
    await redis.close()
