"""The same service on a cluster: every partition where it is, and each server's trouble its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway import doctor
from ledger import durability
from ledger.domain.ids import dev_uuid
from ledger.reconcile import Reconciler
from ledger.settings import Settings
from lua import keys
from tests.auth_fake.production import in_production
from tests.cluster.conftest import EACH, PARTITIONS, USERS, ready, start, under_load, usage
from tests.cluster.nodes import NODE_TIMEOUT_MS, Node, Nodes
from tests.conftest import Service, Services
from tests.flow.invariants import Told, check


async def entries_on(node: Node) -> int:
    named = [await node.ask("KEYS", keys.stream(one)) for one in range(PARTITIONS)]
    return sum([await node.ask("XLEN", one) for names in named for one in names])


async def test_usage_is_recorded_where_its_partition_is_and_drained_from_there(
    service: Service, nodes: Nodes
) -> None:
    told = Told()
    everybody = [user for users in USERS.values() for user in users]
    batch = {"records": [usage(user) for user in everybody]}
    for _ in range(2):  # the first loads every quota
        _, said, _ = await service.post("/usage/batch", batch)
        for one in said["results"]:
            assert told.heard((one["status"], one, {})) == 201
    for user in everybody:
        assert told.heard(await service.post("/usage", usage(user))) == 201
        assert (await service.post("/quota/check", usage(user)))[1]["allowed"]
        _, quota, _ = await service.get(f"/quota/{user}")
        assert 3 in [one["used"] for one in quota["quotas"]]
    for node in nodes.primaries:
        mine = nodes.partitions_of(node, PARTITIONS)
        assert await entries_on(node) == 3 * EACH * len(mine) > 0
    assert (await ready(service))["ledger_lag"] == 3 * len(everybody)
    await check(service, told)
    assert await service.drained() == 3 * len(everybody)
    await check(service, told)


async def test_usage_is_corrected_where_its_partition_is(service: Service, nodes: Nodes) -> None:
    finance = service.token("finance")
    for partition, (user, _) in USERS.items():
        _, recorded, _ = await service.post("/usage", usage(user, quantity=10))
        await service.drained()
        node, stream = nodes.owner_of(partition), keys.stream(partition)
        before = int(await node.ask("XLEN", stream))
        path = f"/usage/{recorded['usage_id']}/corrections"
        body = {"quantity": -4, "reason": "counted twice", "idempotency_key": "key"}
        status, said, _ = await service.post(path, body, headers=finance)
        assert (status, said["quota_remaining"]) == (201, 9994)
        assert int(await node.ask("XLEN", stream)) == before + 1
        _, again, headers = await service.post(path, body, headers=finance)
        assert (again, headers["Idempotent-Replayed"]) == (said, "true")
    await check(service)
    await service.drained()
    corrections = "SELECT COUNT(*) FROM usage_records WHERE reversal_of IS NOT NULL"
    assert await service.sql.fetchval(corrections) == len(USERS)
    await check(service)


async def test_reconcile_and_doctor_look_at_every_server(service: Service, nodes: Nodes) -> None:
    for users in USERS.values():
        await service.post("/usage", usage(users[0]))
    await service.drained()
    for node in nodes.primaries:
        [name, *_] = sorted(await node.ask("KEYS", "quota:*"))
        await node.ask("HSET", name, "used:api_calls", 7)
    reconciler = Reconciler(service.sql, service.servers, service.scripts, repair=True)
    report = await reconciler.whole(PARTITIONS)
    assert len(report.findings) == len(nodes.primaries)
    assert (await reconciler.whole(PARTITIONS)).findings == []
    async with with_setting(nodes.primaries[2], "appendfsync", "everysec"):
        found = [one.line async for one in doctor.examine(service.settings)]
        said = await ready(service)
    assert said["durability"]["in_force"] == "dev-fast"
    for lines in (found, said["reasons"]):
        [line] = [one for one in lines if "appendfsync" in one]
        assert line.startswith(f"redis {nodes.primaries[2].address}: ")


async def test_a_script_that_one_server_has_forgotten_is_given_to_it_again(
    service: Service, nodes: Nodes
) -> None:
    for node in (None, *nodes.primaries):
        if node:
            await node.ask("SCRIPT FLUSH")
        for users in USERS.values():
            assert (await service.post("/usage", usage(users[0])))[0] == 201
    assert await service.drained() == 4 * PARTITIONS
    await check(service)


async def test_a_server_that_is_lost_stops_its_own_partitions_and_nothing_else(
    service: Service, nodes: Nodes
) -> None:
    lost = nodes.primaries[1]
    mine = nodes.partitions_of(lost, PARTITIONS)
    async with without_failover(nodes), under_load(service) as callers:
        for node in nodes.every:  # nobody says that it has failed: it just does not answer
            await node.ask("CONFIG SET", "cluster-node-timeout", 60_000)
        lost.kill()
        await lost.wait()
        await callers.until_taken(lambda one: one not in mine)
        said = await ready(service)
        assert said["status"] == "degraded"
        [line] = [one for one in said["reasons"] if lost.address in one]
        assert f"partitions {', '.join(map(str, mine))} take no usage" in line
        status, refused, headers = await service.post("/usage", usage(USERS[mine[0]][0]))
        assert (status, refused["outcome"]) == (503, "not_recorded")
        assert int(headers["Retry-After"]) >= 1
        counted = "SELECT COUNT(*) FROM usage_records WHERE partition <> ALL($1)"
        before = await service.sql.fetchval(counted, mine)
        async with asyncio.timeout(20):
            while await service.sql.fetchval(counted, mine) == before:
                await callers.until_taken(lambda one: one not in mine)
        found = [one.line async for one in doctor.examine(service.settings)]
        assert any(f"redis {lost.address}: no connection" in one for one in found)
        assert any("no server answers for partitions" in one for one in found)
        await lost.start()
        for node in nodes.every:
            await node.ask("CONFIG SET", "cluster-node-timeout", NODE_TIMEOUT_MS)
    assert not callers.seen.keys() - {"201", "503 not_recorded", "503 unknown"}
    await nodes.until_whole()


async def test_where_every_slot_must_be_covered_a_lost_server_stops_everything(
    service: Service, nodes: Nodes
) -> None:
    lost, other = nodes.primaries[:2]
    theirs = USERS[nodes.partitions_of(other, PARTITIONS)[0]][0]
    async with without_failover(nodes), under_load(service) as callers:
        for node in nodes.primaries[1:]:
            await node.ask("CONFIG SET", "cluster-require-full-coverage", "yes")
        lost.kill()
        await lost.wait()
        while callers.told.heard(answer := await service.post("/usage", usage(theirs))) == 201:
            pass
        assert answer[1]["outcome"] == "not_recorded"
        await lost.start()
        for node in nodes.primaries[1:]:
            await node.ask("CONFIG SET", "cluster-require-full-coverage", "no")
    await nodes.until_whole()


async def test_in_production_a_weak_server_closes_its_own_partitions(
    services: Services, settings: Settings, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durability, "LOOK_S", 0.02)
    async with in_production(settings) as config:
        service = await start(services, config)
        weak = nodes.primaries[1]
        users = [str(dev_uuid(one)) for one, _ in USERS.values()]  # production takes no others
        batch = {"records": [usage(user) for user in users]}

        async def taken() -> list[int]:
            _, said, _ = await service.post("/usage/batch", batch, headers=service.token())
            return [at for at, one in enumerate(said["results"]) if one["status"] == 201]

        assert await taken() == list(range(PARTITIONS))
        others = [one for one in range(PARTITIONS) if nodes.owner_of(one) is not weak]
        async with with_setting(weak, "appendfsync", "everysec"), asyncio.timeout(20):
            while await taken() != others:
                pass
        async with asyncio.timeout(20):
            while await taken() != list(range(PARTITIONS)):
                pass
        await check(service)
        await service.redis.close()


@asynccontextmanager
async def with_setting(node: Node, name: str, value: str) -> AsyncIterator[None]:
    before = (await node.ask("CONFIG GET", name))[name]
    await node.ask("CONFIG SET", name, value)
    try:
        yield
    finally:
        await node.ask("CONFIG SET", name, before)


@asynccontextmanager
async def without_failover(nodes: Nodes) -> AsyncIterator[None]:
    """As `default` wants it: no replica is promoted by itself."""
    try:
        for node in nodes.replicas:
            await node.ask("CONFIG SET", "cluster-replica-no-failover", "yes")
        yield
    finally:
        for node in nodes.replicas:
            await node.ask("CONFIG SET", "cluster-replica-no-failover", "no")
