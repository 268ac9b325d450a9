"""A database restored too far back, and a Redis of another history: nothing goes on before an
operator has decided, and everything agrees afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from gateway.dev.servers import Valkey
from ledger import clock, db, store
from ledger.adoption import LEFT, Adoption, NoSuchPartition, NothingToDecide, situation
from ledger.dead_letters import DeadLetters, Outcome
from ledger.domain.ids import dev_uuid
from ledger.drain import Drain
from ledger.reconcile import Reconciler
from ledger.recovery import Superseded, recover
from ledger.settings import Settings
from lua import keys
from lua.connection import RedisConnection
from lua.keys import Account, partition_of
from lua.scripts import Scripts
from lua.standing import standing
from tests.conftest import Service, Services
from tests.flow.invariants import Told, check
from tests.ledger.crashes import Crash, CrashingConnection, CrashingScripts, Tripwire
from tests.ledger.plans import allows, on_plan
from tests.ledger.restore import back_up, restore
from tests.ledger.stream import Partition

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


def usage(quantity: int = 1, user: str = "ada", **more: Any) -> dict[str, Any]:
    return {"user_id": user, "usage_type": "api_calls", "quantity": quantity, **more}


def adoption(sql: db.Connection, redis: RedisConnection, scripts: Any = None) -> Adoption:
    now = clock.now()
    return Adoption(sql, redis, scripts or Scripts(redis), actor="olga", at=now, reason="we know")


async def decisions(sql: db.Connection) -> list[tuple[str, dict[str, Any]]]:
    rows = await sql.fetch("SELECT * FROM audit_events WHERE actor = 'olga' ORDER BY details")
    return [(row["event_type"], msgspec.json.decode(row["details"])) for row in rows]


def of(user: str, service: Service) -> int:
    return partition_of(Account(dev_uuid(user)).who, service.settings.partitions)


async def drained_and_trimmed(service: Service, told: Told, quantities: list[int]) -> None:
    for quantity in quantities:
        told.heard(await service.post("/usage", usage(quantity)))
        await service.drained()


@pytest.fixture
async def forgetful(service: Service) -> Service:
    """A service whose stream keeps only what the last batch drained, restored to before that."""
    service.drain = Drain(service.sql, service.scripts, 0)
    await on_plan(service.sql, "ada", allows("api_calls", "20"))
    told = Told()
    await drained_and_trimmed(service, told, [1, 2])
    await back_up(service.sql)
    await drained_and_trimmed(service, told, [3, 4, 5])
    await restore(service.sql)
    service.drain = Drain(service.sql, service.scripts, 0)
    return service


async def test_nothing_is_drained_or_loaded_across_a_gap(forgetful: Service) -> None:
    service = forgetful
    before = await store.cursors(service.sql)
    assert (await service.post("/usage", usage(1)))[0] == 201  # warm: its counter knows it all
    await service.redis.run("DEL", keys.quota(of("ada", service), Account(dev_uuid("ada")).who))
    status, said, _ = await service.post("/usage", usage(1))
    assert (status, said["outcome"]) == (503, "not_recorded")
    assert await service.drained() == 0
    assert await store.cursors(service.sql) == before
    assert await service.sql.fetchval("SELECT SUM(quantity) FROM usage_records") == 3


async def test_after_an_accepted_gap_the_ledger_goes_on_and_every_quota_is_rebuilt_from_it(
    forgetful: Service,
) -> None:
    service, partition, told = forgetful, of("ada", forgetful), Told()
    told.acked = {row["usage_id"] for row in await service.sql.fetch("TABLE usage_keys")}
    told.heard(await service.post("/usage", usage(1)))
    assert (await service.post("/usage", usage(5)))[0] == 429  # 16 of 20
    found = await situation(service.sql, service.redis, partition)
    assert (found.gap, found.missing) == (True, 2)  # 3 and 4; the last batch is still there
    await adoption(service.sql, service.redis).accept_gap(partition)
    told.unknown = 1  # the 5, which was told before the restore
    status, said, _ = answer = await service.post("/usage", usage(5))
    told.heard(answer)
    assert (status, said["quota_remaining"]) == (201, 20 - (1 + 2) - (5 + 1) - 5)
    await check(service, told)
    assert await service.drained() == 4  # with the entry that began the epoch
    await check(service, told)
    assert await service.sql.fetchval("SELECT SUM(quantity) FROM usage_records") == 14
    [(event, details)] = await decisions(service.sql)
    assert (event, details["partition"], details["missing"]) == ("gap_accepted", partition, 2)
    assert (details["after"], details["through"]) == (found.row.last_id, found.redis.floor)
    assert details["reason"] == "we know"
    reconciler = Reconciler(service.sql, service.servers, service.scripts, repair=False)
    assert (await reconciler.whole(service.settings.partitions)).findings == []
    row = await store.cursor(service.sql, partition)
    assert (row.epoch, row.drained, row.position) == (2, 2 + 2 + 4, 2 + 3)
    [began] = await service.sql.fetch("SELECT * FROM audit_events WHERE actor = 'ledger'")
    assert began["event_type"] == "redis_epoch_began"


async def test_decisions_that_were_restored_away_do_not_hold_out_new_quotas(
    service: Service,
) -> None:
    """The counters in Redis know of a dead letter settled, and of terms, that the ledger lost."""
    service.drain = Drain(service.sql, service.scripts, 0)
    await on_plan(service.sql, "ada", allows("api_calls", "20"))
    told, partition = Told(), of("ada", service)
    await drained_and_trimmed(service, told, [1, 2])
    await service.redis.run(
        "XADD", keys.stream(partition), "*", "event", "damaged", "quota", "", "terms", ""
    )
    await service.drained()
    await back_up(service.sql)
    before = await service.sql.fetchval("SELECT version FROM subscriptions")
    change = "UPDATE subscriptions SET version = $1"
    await service.sql.execute(change, before + 5)
    [letter] = [one async for one in store.dead_letters(service.sql, settled=False)]
    letters = DeadLetters(service.sql, service.scripts, actor="olga", at=NOON)
    await letters.discard(letter.dead_letter_id, "x")
    await service.scripts.unload(partition, [f"user:{dev_uuid('ada')}"], revision=1)
    await drained_and_trimmed(service, told, [3, 4])
    await restore(service.sql)
    await service.sql.execute(change, before)
    await adoption(service.sql, service.redis).accept_gap(partition)
    assert (await service.post("/usage", usage(1)))[0] == 201
    await service.drained()
    await check(service)


async def test_a_gap_that_is_none_is_not_accepted(service: Service) -> None:
    await service.post("/usage", usage(1))
    await service.drained()
    before = await store.cursors(service.sql)
    with pytest.raises(NothingToDecide, match="has no gap"):
        await adoption(service.sql, service.redis).accept_gap(of("ada", service))
    with pytest.raises(NoSuchPartition, match="there is no partition 99, only 0 to 3"):
        await situation(service.sql, service.redis, 99)
    assert await store.cursors(service.sql) == before
    assert await decisions(service.sql) == []


async def trimmed_without_us(partition: Partition, scripts: Scripts) -> None:
    """Two entries that the database had drained before it was restored."""
    row = await store.cursor(partition.sql, 0)
    _, last = [await partition.add() for _ in range(2)]
    await scripts.trim(0, replid=row.replid, drained=row.drained + 2, through=last)


async def test_an_acceptance_killed_at_any_await_is_made_again(
    partition: Partition, scripts: Scripts, database_url: str
) -> None:
    sql, redis = partition.sql, partition.redis
    for at in range(100):
        await trimmed_without_us(partition, scripts)
        await partition.add()
        wire, doomed = Tripwire(at), await db.connect(database_url)
        with suppress(Crash):
            failing: Any = CrashingConnection(doomed, wire)
            await adoption(failing, redis, CrashingScripts(scripts, wire)).accept_gap(0)
        doomed.terminate()  # its session, and the lock it may hold, end with it
        await recover(sql, scripts, 0)
        if (await situation(sql, redis, 0)).gap:
            assert await Drain(sql, scripts, 600).run_once([0]) == 0, wire.name
            await adoption(sql, redis).accept_gap(0)
        assert len(await decisions(sql)) == at + 1, wire.name
        while await Drain(sql, scripts, 600).run_once([0]):
            pass
        row = await store.cursor(sql, 0)
        held = await redis.run("HMGET", keys.meta(0), "epoch", "replid")
        assert [one.decode() for one in held] == [str(row.epoch), row.replid], wire.name
        assert (await standing(redis, 0)).undrained == 0, wire.name
        assert await sql.fetchval("SELECT COUNT(*) FROM usage_records") == at + 1
        if not wire.tripped:
            break
    assert 8 < at < 99


@pytest.fixture
async def old_master(tmp_path: Path) -> AsyncIterator[Valkey]:
    async with Valkey(tmp_path / "old") as server:
        yield server


@pytest.fixture
async def new_master(tmp_path: Path) -> AsyncIterator[Valkey]:
    async with Valkey(tmp_path / "new") as server:
        yield server


async def promoted(old: Service, new: Service) -> None:
    """Makes the new server a copy of the old one, and then a master of its own."""
    await old.redis.run("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    master = urlsplit(old.settings.redis_url)
    await new.redis.run("CONFIG", "SET", "masterauth", master.password)
    await new.redis.run("REPLICAOF", master.hostname, master.port)
    async with asyncio.timeout(20):
        while (await new.redis.run("INFO"))["master_link_status"] != "up":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await old.drained()  # vouches again: a first replica changes its master's replication id
    assert await old.redis.run("WAIT", 1, 5000) == 1
    await new.redis.run("REPLICAOF", "NO", "ONE")


async def test_a_superseded_server_serves_nothing_until_it_is_adopted_and_then_loses_nothing(
    services: Services, settings: Settings, old_master: Valkey, new_master: Valkey
) -> None:
    """The old master went on recording after the new one was believed; then it comes back."""
    old, new = [
        await services.start(msgspec.structs.replace(settings, redis_url=server.url))
        for server in (old_master, new_master)
    ]
    await on_plan(old.sql, "ada", allows("api_calls", "20"))
    told, partition = Told(), of("ada", old)
    told.heard(await old.post("/usage", usage(4)))
    await old.drained()
    await promoted(old, new)
    told.heard(await old.post("/usage", usage(1)))  # before what the ledger will have drained
    assert told.heard(await new.post("/usage", usage(2))) == 201
    assert await new.drained() == 1
    told.heard(await old.post("/usage", usage(3)))  # after it
    before = await store.cursors(old.sql)

    assert await old.drained() == 0
    old_master.kill()
    await old_master.wait()
    await old_master.start()
    status, said, _ = await old.post("/usage", usage(1))
    assert (status, said["outcome"]) == (503, "not_recorded")
    for one in range(settings.partitions):
        with pytest.raises(Superseded):
            await adoption(old.sql, old.redis).accept_gap(one)
    assert await store.cursors(old.sql) == before
    assert await decisions(old.sql) == []

    parked = [await adoption(old.sql, old.redis).adopt(one) for one in range(settings.partitions)]
    assert parked == [int(one == partition) for one in range(settings.partitions)]
    answer = await old.post("/usage", usage(1))
    told.heard(answer)
    assert answer[1]["quota_remaining"] == 20 - 4 - 1 - 2 - 3 - 1  # not what the old server counted
    await check(old, told)
    old.drain = Drain(old.sql, old.scripts, 600)
    await old.drained()
    await check(old, told)
    [letter] = [one async for one in store.dead_letters(old.sql, settled=False)]
    assert (letter.units, letter.reason) == (1, LEFT)
    retried = await DeadLetters(old.sql, old.scripts, actor="olga", at=NOON).retry(
        letter.dead_letter_id
    )
    assert retried.outcome is Outcome.RECORDED
    await check(old, told)
    assert await old.sql.fetchval("SELECT SUM(quantity) FROM usage_records") == 11
    adopted = [details for event, details in await decisions(old.sql) if event == "redis_adopted"]
    assert sorted(one["partition"] for one in adopted) == list(range(settings.partitions))
    assert {one["from"] for one in adopted} == {row.replid for row in before}
    assert {one["reason"] for one in adopted} == {"we know"}
    with pytest.raises(NothingToDecide, match="believed already"):
        await adoption(old.sql, old.redis).adopt(partition)


async def test_an_adoption_hides_no_gap(partition: Partition, scripts: Scripts) -> None:
    """Restored to before the server was believed, and before what it still has."""
    sql, redis = partition.sql, partition.redis
    drain = Drain(sql, scripts, 0)
    for _ in range(4):
        await partition.add()
        await drain.run_once([0])
    await sql.execute("UPDATE stream_cursor SET replid = $1, last_id = '1-0'", "f" * 40)
    with pytest.raises(Superseded):
        await recover(sql, scripts, 0)
    await adoption(sql, redis).adopt(0)
    assert (await situation(sql, redis, 0)).gap
    assert await Drain(sql, scripts, 0).run_once([0]) == 0
    await adoption(sql, redis).accept_gap(0)
    assert await Drain(sql, scripts, 0).run_once([0]) > 0
