"""Slots are moved and primaries hand over while usage is recorded: nothing is lost or doubled."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from ledger import clock
from ledger.corrections import Corrections
from ledger.settings import Settings
from lua import keys, replicated
from lua.connection import RedisUnavailable
from tests.cluster.conftest import PARTITIONS, USERS, epochs, start, under_load, usage
from tests.cluster.nodes import Nodes, until
from tests.conftest import Service, Services
from tests.flow.invariants import Told, check


async def test_slots_move_under_load_and_back(service: Service, nodes: Nodes) -> None:
    async with under_load(service) as callers:
        for partition in (2, 3):
            source = nodes.owner_of(partition)
            target = nodes.primaries[2]
            for one, other in ((source, target), (target, source)):
                await nodes.move(partition, one, other)
                await callers.until_taken()
    assert set(callers.seen) <= {"201", "503 not_recorded"}
    assert callers.seen["503 not_recorded"] > 0
    assert await epochs(service) == {1}  # nothing was lost on the way


async def test_slots_that_move_at_one_moment_move_under_load(
    service: Service, nodes: Nodes
) -> None:
    """Atomic slot migration, Valkey 9."""
    async with under_load(service) as callers:
        for partition in (2, 3):
            one, other = nodes.owner_of(partition), nodes.primaries[2]
            for source, target in ((one, other), (other, one)):
                await nodes.move_at_once(partition, source, target)
                await callers.until_taken()
    assert await epochs(service) == {1}


@pytest.mark.parametrize("first", ["stream", "meta", "quota", "receipts"])
async def test_half_a_partition_is_no_partition(service: Service, nodes: Nodes, first: str) -> None:
    """Whichever key has gone ahead: nothing is recorded or decided until the rest has followed."""
    partition, told = 2, Told()
    user = USERS[partition][0]
    for number in range(3):
        told.heard(await service.post("/usage", usage(user, idempotency_key=f"{number}")))
    await service.drained()
    told.heard(await service.post("/usage", usage(user, idempotency_key="undrained")))
    source, target = nodes.owner_of(partition), nodes.primaries[2]
    names = {
        "stream": [keys.stream(partition)],
        "meta": [keys.meta(partition)],
        "quota": await source.ask("KEYS", f"quota:{{p{partition:02d}}}:*"),
        "receipts": await source.ask("KEYS", f"{keys.receipts(partition)}*"),
    }
    assert all(names.values())
    await nodes.begin_move(partition, source, target)
    there = set()
    for name in (first, *(one for one in names if one != first)):
        await nodes.move_keys(names[name], source, target)
        there.add(name)
        for request in (
            usage(user, idempotency_key="0"),
            usage(user, idempotency_key="new"),
            usage(USERS[partition][1]),
        ):
            status, said, _ = await service.post("/usage", request)
            assert (status, said["outcome"]) == (503, "not_recorded")
        if len(there & {"stream", "meta"}) == 1:
            with pytest.raises(RedisUnavailable):
                await service.drain.partition(partition)
        await service.drained()
        assert await epochs(service) == {1}
    await nodes.end_move(partition, source, target)
    _, _, headers = await service.post("/usage", usage(user, idempotency_key="0"))
    assert headers["Idempotent-Replayed"] == "true"
    assert told.heard(await service.post("/usage", usage(user, idempotency_key="new"))) == 201
    async with asyncio.timeout(30):  # a partition that stopped is looked at again after a while
        while len(told.acked) != await service.sql.fetchval("SELECT COUNT(*) FROM usage_records"):
            await service.drained()
    await check(service, told)
    assert await epochs(service) == {1}
    await nodes.move(partition, target, source)


async def test_a_correction_that_half_a_partition_refused_is_sent_when_the_rest_has_followed(
    service: Service, nodes: Nodes
) -> None:
    partition, finance = 2, service.token("finance")
    _, recorded, _ = await service.post("/usage", usage(USERS[partition][0], quantity=10))
    await service.drained()
    path = f"/usage/{recorded['usage_id']}/corrections"
    body = {"quantity": -4, "reason": "counted twice", "idempotency_key": "key"}
    source, target = nodes.owner_of(partition), nodes.primaries[2]
    names = await source.ask("KEYS", f"*{{p{partition:02d}}}*")
    await nodes.begin_move(partition, source, target)
    await nodes.move_keys([keys.stream(partition)], source, target)
    status, said, _ = await service.post(path, body, headers=finance)
    assert (status, said["outcome"]) == (503, "unknown")  # it is kept: others may send it
    assert await service.sql.fetchval("SELECT COUNT(*) FROM usage_corrections") == 1
    rest = [one for one in names if one != keys.stream(partition)]
    await nodes.move_keys(rest, source, target)
    await nodes.end_move(partition, source, target)
    await service.sql.execute("UPDATE usage_corrections SET next_attempt_at = NOW()")
    async with asyncio.timeout(30):
        while not await service.sql.fetchval(
            "SELECT COUNT(*) FROM usage_records WHERE quantity < 0"
        ):
            await Corrections(service.scripts, 1000).run_once(service.sql, clock.now())
            await service.drained()
    status, said, headers = await service.post(path, body, headers=finance)
    assert (status, said["net_quantity"], headers["Idempotent-Replayed"]) == (201, 6, "true")
    await check(service)
    assert await epochs(service) == {1}
    await nodes.move(partition, target, source)


async def test_primaries_hand_over_to_their_replicas_under_load_and_back(
    service: Service, nodes: Nodes
) -> None:
    """As an operator does for an upgrade, under DURABILITY=default."""
    async with under_load(service) as callers:
        for primary, replica in zip(nodes.primaries[:2], nodes.replicas[:2], strict=True):
            await nodes.promote(replica)
            await callers.until_taken()
            await nodes.until_follows(primary)
            await nodes.promote(primary)
            await callers.until_taken()
            await nodes.until_follows(replica)
    assert await epochs(service) == {1}


async def test_a_primary_dies_under_load_and_what_was_acknowledged_is_on_its_successor(
    services: Services, settings: Settings, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicated, "ASKS_MS", (1, 10, 140))
    wanted = msgspec.structs.replace(settings, durability="replicated", durability_replicas=1)
    service = await start(services, wanted)
    primary, replica = nodes.primaries[1], nodes.replicas[1]
    mine = nodes.partitions_of(primary, PARTITIONS)
    async with under_load(service) as callers:
        primary.kill()
        await primary.wait()
        await callers.until_taken(lambda one: one not in mine)
        await until(replica.is_primary)  # by itself
        await primary.start()  # and is its replica now, so that both can be waited for
        await nodes.until_follows(primary)
        await callers.until_taken()
        await nodes.promote(primary)  # and back
        await nodes.until_follows(replica)
    assert await epochs(service) == {1}
    await service.redis.close()
