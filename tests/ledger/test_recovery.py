"""Redis forgets, restarts, or is another one: nothing is accepted on a forgotten counter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.dev.servers import Valkey
from ledger import db, store
from ledger.drain import Drain
from ledger.recovery import Superseded, recover
from ledger.settings import Settings
from lua import keys
from lua.scripts import Scripts
from lua.types import Fenced, RecoveryOutcome
from tests.conftest import Service, Services
from tests.flow.invariants import Told, check
from tests.ledger.plans import allows, on_plan, organization_on_plan, pool
from tests.ledger.stream import Partition


def usage(user: str, quantity: int = 1, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "usage_type": "api_calls", "quantity": quantity, **more}


@pytest.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[Valkey]:
    async with Valkey(tmp_path / "own") as server:
        yield server


@pytest.fixture
async def alone(services: Services, settings: Settings, own_redis: Valkey) -> Service:
    """A service on a Redis that may be killed."""
    return await services.start(msgspec.structs.replace(settings, redis_url=own_redis.url))


async def test_after_losing_everything_only_undrained_usage_is_lost(service: Service) -> None:
    await organization_on_plan(
        service.sql, "clinic", allows("api_calls", "10"), pool("api_calls", "15")
    )
    for user in ("ada", "bob"):
        await service.post("/usage", usage(user, 4, organization_id="clinic"))
    await service.drained()
    await service.post("/usage", usage("ada", 5, organization_id="clinic"))  # will be lost
    await service.redis.run("FLUSHALL")
    for user, quantity, status, remaining in [
        ("ada", 7, 429, 6),
        ("ada", 6, 201, 0),
        ("bob", 2, 429, 1),
        ("bob", 1, 201, 0),
    ]:
        got, said, _ = await service.post("/usage", usage(user, quantity, organization_id="clinic"))
        assert (got, said["quota_remaining"]) == (status, remaining)
    await service.drained()
    assert await service.sql.fetchval("SELECT SUM(quantity) FROM usage_records") == 15
    await check(service)


async def test_a_loss_begins_an_epoch_and_leaves_an_audit_event(service: Service) -> None:
    await service.post("/usage", usage("ada"))
    await service.drained()
    epochs = "SELECT partition, epoch FROM stream_cursor ORDER BY 1"
    before = dict(await service.sql.fetch(epochs))
    await service.redis.run("FLUSHALL")
    await service.drained()  # recovers
    await service.drained()  # reads what the recovery wrote
    assert dict(await service.sql.fetch(epochs)) == {one: n + 1 for one, n in before.items()}
    events = await service.sql.fetch("SELECT * FROM audit_events")
    assert {one["event_type"] for one in events} == {"redis_history_lost"}
    told = [msgspec.json.decode(one["details"]) for one in events]
    assert {one["partition"] for one in told} == set(before)


async def test_a_key_recorded_before_the_loss_is_replayed_after_it(service: Service) -> None:
    request = usage("ada", 3, idempotency_key="k")
    _, first, _ = await service.post("/usage", request)
    await service.drained()
    await service.redis.run("FLUSHALL")
    status, again, headers = await service.post("/usage", request)
    assert (status, again, headers.get("Idempotent-Replayed")) == (201, first, "true")
    status, _, _ = await service.post("/usage", usage("ada", 4, idempotency_key="k"))
    assert status == 422
    fresh = usage("ada", 1, idempotency_key="fresh")
    assert (await service.post("/usage", fresh))[1]["quota_remaining"] == 9996
    await service.drained()
    await check(service)


async def test_a_key_that_was_lost_counts_when_it_is_retried(service: Service) -> None:
    request = usage("ada", 3, idempotency_key="k")
    await service.post("/usage", request)
    await service.redis.run("FLUSHALL")
    status, _, headers = await service.post("/usage", request)
    assert (status, headers.get("Idempotent-Replayed")) == (201, None)
    await service.drained()
    assert await service.sql.fetchval("SELECT SUM(quantity) FROM usage_records") == 3


async def test_an_expired_receipt_lets_a_repeat_through_and_the_ledger_gives_it_back(
    service: Service,
) -> None:
    request = usage("ada", 3, idempotency_key="k")
    _, first, _ = await service.post("/usage", request)
    await service.drained()
    await service.redis.run("DEL", *await service.redis.run("KEYS", "receipt:*"))
    status, again, _ = await service.post("/usage", request)
    assert (status, again["usage_id"]) == (201, first["usage_id"])
    await service.drained()
    assert await service.sql.fetchval("SELECT SUM(quantity) FROM usage_records") == 3
    assert await service.sql.fetchval("SELECT SUM(units) FROM usage_refunds") == 3
    await check(service)


async def test_a_killed_redis_comes_back_with_every_answered_record(
    alone: Service, own_redis: Valkey
) -> None:
    await on_plan(alone.sql, "ada", allows("api_calls", "10"))
    told = Told()
    for n in range(5):
        request = usage("ada", 1, idempotency_key=str(n))
        told.heard(await alone.post("/usage", request))
        if n == 2:
            await alone.drained()
    for _ in range(2):
        own_redis.kill()
        await own_redis.wait()
        assert (await alone.post("/usage", usage("ada")))[0] == 503
        await own_redis.start()
    _, said, headers = await alone.post("/usage", usage("ada", 1, idempotency_key="4"))
    assert headers["Idempotent-Replayed"] == "true"
    status, said, _ = await alone.post("/usage", usage("ada", 5))
    assert (status, said["quota_remaining"]) == (201, 0)
    told.heard((status, said, {}))
    assert (await alone.post("/usage", usage("ada")))[0] == 429
    await alone.drained()
    await check(alone, told)
    assert await alone.sql.fetchval("SELECT SUM(quantity) FROM usage_records") == 10
    assert await alone.sql.fetchval("SELECT MAX(epoch) FROM stream_cursor") == 1
    assert await alone.sql.fetchval("SELECT COUNT(*) FROM audit_events") == 0


async def test_a_redis_restarted_empty_is_a_loss(
    alone: Service, own_redis: Valkey, tmp_path: Path
) -> None:
    await alone.post("/usage", usage("ada", 4))
    await alone.drained()
    own_redis.kill()
    await own_redis.wait()
    for journal in (tmp_path / "own" / "redis").rglob("*.aof*"):
        journal.unlink()
    await own_redis.start()
    status, said, _ = await alone.post("/usage", usage("ada"))
    assert (status, said["quota_remaining"]) == (201, 9995)
    await alone.drained()
    await check(alone)
    assert await alone.sql.fetchval("SELECT COUNT(*) FROM audit_events") >= 1


async def test_a_journal_cut_at_the_end_is_noticed(
    alone: Service, own_redis: Valkey, tmp_path: Path
) -> None:
    """A power loss on a disk that lied: acked entries are gone, and their counters with them."""
    await alone.post("/usage", usage("ada", 4))
    await alone.drained()
    for n in range(3):
        await alone.post("/usage", usage("ada", 1, idempotency_key=str(n)))
    own_redis.kill()
    await own_redis.wait()
    [journal] = (tmp_path / "own" / "redis").rglob("*.incr.aof")
    journal.write_bytes(journal.read_bytes()[:-5])
    await own_redis.start()
    status, said, _ = await alone.post("/usage", usage("ada"))
    assert (status, said["quota_remaining"]) == (201, 9993)
    assert await alone.sql.fetchval("SELECT MAX(epoch) FROM stream_cursor") == 2
    await alone.drained()
    await check(alone)


async def test_what_only_a_gateway_knows_to_be_lost_is_noticed_though_the_ledger_recovered_first(
    alone: Service, own_redis: Valkey, tmp_path: Path
) -> None:
    await alone.post("/usage", usage("ada", 4))
    await alone.drained()
    for n in range(3):
        await alone.post("/usage", usage("ada", 1, idempotency_key=str(n)))
    own_redis.kill()
    await own_redis.wait()
    [journal] = (tmp_path / "own" / "redis").rglob("*.incr.aof")
    journal.write_bytes(journal.read_bytes()[:-5])
    await own_redis.start()
    assert await alone.drained() == 2, "the ledger recovers first, and misses nothing"
    assert await alone.sql.fetchval("SELECT MAX(epoch) FROM stream_cursor") == 1
    assert (await alone.post("/usage", usage("ada")))[0] == 201
    async with asyncio.timeout(10):
        while await alone.sql.fetchval("SELECT MAX(epoch) FROM stream_cursor") == 1:
            pass
    _, said, headers = await alone.post("/usage", usage("ada", 1, idempotency_key="2"))
    assert (said["quota_remaining"], headers.get("Idempotent-Replayed")) == (9992, None)
    await alone.drained()
    await check(alone)
    assert await alone.sql.fetchval("SELECT COUNT(*) FROM audit_events") == 1


async def test_a_connection_that_only_broke_is_no_loss(alone: Service) -> None:
    for n in range(3):
        assert (await alone.post("/usage", usage("ada", 1, idempotency_key=str(n))))[0] == 201
        await alone.redis.run("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        async with asyncio.timeout(10):
            while (await alone.post("/usage", usage("ada", 1, idempotency_key=str(n))))[0] != 201:
                pass
    await alone.drained()
    assert await alone.sql.fetchval("SELECT SUM(quantity) FROM usage_records") == 3
    assert await alone.sql.fetchval("SELECT MAX(epoch) FROM stream_cursor") == 1


async def test_a_server_of_an_unknown_history_is_refused(service: Service) -> None:
    await service.post("/usage", usage("ada"))
    await service.drained()
    for partition in range(service.settings.partitions):
        await service.redis.run("HSET", keys.meta(partition), "replid", "f" * 40)
    status, said, headers = await service.post("/usage", usage("ada"))
    assert (status, said["outcome"]) == (503, "not_recorded")
    assert int(headers["Retry-After"]) >= 1
    assert (await service.get("/quota/ada"))[0] == 503
    with pytest.raises(Superseded):
        await service.drain.partition(0)
    assert await service.sql.fetchval("SELECT MAX(epoch) FROM stream_cursor") == 1


async def test_a_changed_replication_id_alone_is_vouched_for_again(
    partition: Partition, connection: db.Connection, scripts: Scripts, drain: Drain
) -> None:
    await partition.add()
    await partition.redis.run("HSET", keys.meta(0), "replid", "f" * 40)
    await connection.execute("UPDATE stream_cursor SET replid = $1", "f" * 40)
    with pytest.raises(Fenced):
        await scripts.read(0, after="0-0", count=1)
    assert (await recover(connection, scripts, 0)).outcome is RecoveryOutcome.WHOLE
    while await drain.run_once([0]):
        pass
    await partition.check()


async def test_entries_older_than_what_callers_were_told_are_a_loss(
    partition: Partition, connection: db.Connection, scripts: Scripts
) -> None:
    last = await partition.add()
    beyond = f"{int(last.split('-')[0]) + 1}-0"
    assert (await recover(connection, scripts, 0, last)).outcome is RecoveryOutcome.WHOLE
    assert (await recover(connection, scripts, 0, beyond)).outcome is RecoveryOutcome.LOST


async def test_entries_older_than_the_cursor_are_a_loss(
    partition: Partition, connection: db.Connection, scripts: Scripts, drain: Drain
) -> None:
    last = await partition.add()
    await drain.run_once([0])
    await connection.execute(
        "UPDATE stream_cursor SET last_id = $1", f"{int(last.split('-')[0]) + 1}-0"
    )
    assert (await recover(connection, scripts, 0)).outcome is RecoveryOutcome.LOST
    while await drain.run_once([0]):
        pass
    assert await connection.fetchval("SELECT COUNT(*) FROM audit_events") == 1


async def test_a_ledger_still_connected_to_a_superseded_server_moves_nothing(
    partition: Partition, connection: db.Connection, drain: Drain
) -> None:
    """The ledger vouched for another server meanwhile; this one does not know and looks whole."""
    await partition.add()
    await connection.execute("UPDATE stream_cursor SET epoch = 2, replid = $1", "f" * 40)
    for _ in range(2):
        with pytest.raises(Superseded):
            await drain.partition(0)
    row = await store.cursor(connection, 0)
    assert (row.last_id, row.epoch, row.replid) == ("0-0", 2, "f" * 40)
    assert await connection.fetchval("SELECT COUNT(*) FROM usage_keys") == 0
