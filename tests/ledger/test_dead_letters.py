"""Dead letters, settled by an operator: the ledger and Redis agree before and after."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from ledger import db, store
from ledger.dead_letters import Outcome
from ledger.domain.ids import dev_uuid
from lua import keys
from lua.connection import RedisConnection, RedisUnavailable
from lua.scripts import Scripts
from lua.types import LoadOutcome
from tests.conftest import Service
from tests.flow.invariants import Told, check
from tests.ledger.crashes import Crash, CrashingConnection, CrashingScripts, Tripwire
from tests.ledger.letters import REFUSED, accept, decider, events, refuse
from tests.ledger.plans import allows, organization_on_plan, pool
from tests.ledger.test_load import Loading


def usage(quantity: int = 1, **more: Any) -> dict[str, Any]:
    one = {"user_id": "ada", "organization_id": "clinic", "usage_type": "api_calls"}
    return {**one, "quantity": quantity, **more}


async def unlimit(sql: db.Connection) -> None:
    entitlements = msgspec.json.encode([allows("api_calls", None)]).decode()
    await sql.execute("UPDATE billing_plans SET entitlements = $1", entitlements)


@pytest.fixture
async def ada(service: Service, postgres_pool: db.Pool) -> Loading:
    """A member of a clinic with hard limits, one of whose records Postgres refused."""
    await organization_on_plan(
        service.sql, "clinic", allows("api_calls", "20"), pool("api_calls", "30")
    )
    await refuse(service.sql)
    return Loading(service, postgres_pool, "ada", "clinic")


async def park(ada: Loading, told: Told) -> int:
    service = ada.service
    told.heard(await service.post("/usage", usage(2)))
    told.heard(await service.post("/usage", usage(REFUSED)))
    await service.drained()
    [letter] = await store.open_dead_letters(service.sql)
    return letter


async def used(ada: Loading) -> list[str | None]:
    return [await ada.field("used:api_calls", one) for one in (ada.who, ada.who[:17])]


@pytest.mark.parametrize("loaded", ["before", "while parked", "after"])
async def test_a_retried_letter_is_a_record_and_counts_once_whenever_the_quota_was_loaded(
    ada: Loading, loaded: str
) -> None:
    service, told = ada.service, Told()
    letter = await park(ada, told)
    await check(service, told)
    if loaded == "while parked":
        await ada.forget()
        await ada.load()
        await check(service, told)
    await accept(service.sql)
    done = await decider(service.sql, service.scripts).retry(letter)
    assert done.outcome is Outcome.RECORDED
    assert await store.open_dead_letters(service.sql) == []
    await check(service, told)
    if loaded == "after":
        await ada.forget()
        await ada.load()
    assert await used(ada) == ["15", "15"]
    told.heard(await service.post("/usage", usage(5)))
    assert (await service.post("/usage", usage(1)))[0] == 429
    await service.drained()
    await check(service, told)
    assert await service.sql.fetchval("SELECT SUM(quantity) FROM usage_records") == 20
    [(event, actor, details)] = await events(service.sql)
    assert (event, actor, details["dead_letter_id"]) == ("dead_letter_retried", "olga", letter)
    assert (details["outcome"], details["units"]) == ("recorded", REFUSED)


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_discarded_letter_gives_its_units_back_to_user_and_pool(
    ada: Loading, loaded: bool
) -> None:
    service, told = ada.service, Told()
    letter = await park(ada, told)
    assert (await service.post("/usage", usage(6)))[0] == 429
    if not loaded:
        await ada.forget()
    await decider(service.sql, service.scripts).discard(letter, "a test of ours")
    await check(service, told)
    told.heard(await service.post("/usage", usage(18)))
    assert await used(ada) == ["20", "20"]
    assert (await service.post("/usage", usage(1)))[0] == 429
    await service.drained()
    await check(service, told)
    [(event, actor, details)] = await events(service.sql)
    assert (event, actor, details["reason"]) == ("dead_letter_discarded", "olga", "a test of ours")
    who = "SELECT user_id, organization_id FROM audit_events WHERE actor = 'olga'"
    [about] = await service.sql.fetch(who)
    assert tuple(about) == (dev_uuid("ada"), dev_uuid("clinic"))


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_load_that_began_before_a_discard_does_not_bring_the_units_back(
    ada: Loading, loaded: bool
) -> None:
    service = ada.service
    letter = await park(ada, Told())
    if loaded:
        await service.sql.execute(
            "UPDATE subscriptions SET version = nextval('subscription_versions')"
        )
    else:
        await ada.forget()

    async def discard() -> None:
        await decider(service.sql, service.scripts).discard(letter, "ours")

    outcomes = await ada.load(discard)
    assert outcomes == [LoadOutcome.RETRY, LoadOutcome.LOADED, LoadOutcome.LOADED]  # pool, user
    assert await used(ada) == ["2", "2"]
    await check(service)


async def test_usage_goes_on_while_letters_are_discarded(ada: Loading) -> None:
    service, told = ada.service, Told()
    for user in ("bob", "carl"):
        told.heard(await service.post("/usage", usage(REFUSED, user_id=user)))
    told.heard(await service.post("/usage", usage(1)))
    await service.drained()
    decide, done = decider(service.sql, service.scripts), asyncio.Event()
    statuses: list[int] = []

    async def ask() -> None:
        while not done.is_set() or statuses[-1] == 201:
            statuses.append(told.heard(await service.post("/usage", usage(1))))

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    for letter in await store.open_dead_letters(service.sql):
        await decide.discard(letter, "ours")
    done.set()
    await asyncio.gather(*asking)
    assert (statuses.count(201), set(statuses)) == (19, {201, 429})
    assert await used(ada) == ["20", "20"]
    await check(service, told)
    await service.drained()
    await check(service, told)


async def test_what_redis_counted_for_an_entry_that_cannot_be_read_counts_until_it_is_discarded(
    ada: Loading,
) -> None:
    """Its terms are damaged, so it becomes no record; yet its units went into the counters."""
    service, told = ada.service, Told()
    told.heard(await service.post("/usage", usage(2)))
    key = keys.quota(ada.partition, ada.who)
    await service.redis.run("HSET", key, "terms", b"\xc1")
    told.heard(await service.post("/usage", usage(7)))
    await service.drained()
    await check(service, told)
    await ada.forget()
    await ada.load()
    assert await used(ada) == ["9", "9"]
    await check(service, told)
    [letter] = await store.open_dead_letters(service.sql)
    decide = decider(service.sql, service.scripts)
    assert (await decide.retry(letter)).outcome is Outcome.STILL_OPEN
    await check(service, told)
    await decide.discard(letter, "damaged")
    await ada.load()
    assert await used(ada) == ["2", "2"]
    await check(service, told)


async def test_a_letter_whose_key_was_recorded_meanwhile_gives_its_units_back(
    ada: Loading,
) -> None:
    service = ada.service
    request = usage(REFUSED, idempotency_key="k")
    await service.post("/usage", request)
    await service.drained()
    await accept(service.sql)
    await service.redis.run("DEL", *await service.redis.run("KEYS", "receipt:*"))
    await unlimit(service.sql)
    await ada.forget()
    assert (await service.post("/usage", request))[0] == 201
    await service.drained()
    [letter] = await store.open_dead_letters(service.sql)
    assert await used(ada) == ["26", "26"]
    done = await decider(service.sql, service.scripts).retry(letter)
    assert done.outcome is Outcome.REPEAT
    await ada.load()
    assert await used(ada) == ["13", "13"]
    assert await service.sql.fetchval("SELECT SUM(quantity) FROM usage_records") == REFUSED
    assert await service.sql.fetchval("SELECT COUNT(*) FROM usage_refunds") == 2


async def test_a_discard_that_could_not_reach_redis_is_finished_by_the_same_call_again(
    ada: Loading,
) -> None:
    service = ada.service
    letter = await park(ada, Told())
    nowhere = RedisConnection("redis://127.0.0.1:1")
    with pytest.raises(RedisUnavailable):
        await decider(service.sql, Scripts(nowhere)).discard(letter, "ours")
    await nowhere.close()
    assert await used(ada) == ["15", "15"]  # too much for a while: refused early, never late
    assert await store.open_dead_letters(service.sql) == []
    again = await decider(service.sql, service.scripts).discard(letter, "ours")
    assert again.outcome is Outcome.BEFORE
    await ada.load()
    assert await used(ada) == ["2", "2"]
    await check(service)


@pytest.mark.parametrize("way", ["retry", "discard"])
async def test_a_call_killed_at_any_await_is_finished_by_the_next(
    ada: Loading, way: str, database_url: str
) -> None:
    service = ada.service
    await unlimit(service.sql)
    await accept(service.sql)

    async def settle(connection: Any, scripts: Any, letter: int) -> None:
        decide = decider(connection, scripts)
        await (decide.retry(letter) if way == "retry" else decide.discard(letter, "x"))

    for at in range(100):
        await refuse(service.sql)
        await service.post("/usage", usage(REFUSED))
        await service.drained()
        await accept(service.sql)
        [letter] = await store.open_dead_letters(service.sql)
        wire, doomed = Tripwire(at), await db.connect(database_url)
        with suppress(Crash):
            await settle(
                CrashingConnection(doomed, wire), CrashingScripts(service.scripts, wire), letter
            )
        doomed.terminate()  # its session, and the lock it may hold, end with it
        await settle(service.sql, service.scripts, letter)
        await ada.load()
        expected = str(REFUSED * (at + 1)) if way == "retry" else None
        assert await used(ada) == [expected, expected], wire.name
        assert len(await events(service.sql)) == at + 1, wire.name
        if not wire.tripped:
            break
    await check(service)
    assert 8 < at < 99
