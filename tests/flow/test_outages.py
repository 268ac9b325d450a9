"""Postgres or Redis goes away and comes back; the gateway is never restarted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import pytest

from bench.relay import Relay
from ledger import db, loops
from ledger.settings import Settings
from lua.cluster import Cluster
from lua.connection import RedisConnection
from tests.conftest import Service, Services
from tests.flow.invariants import Told, check


def usage(user: str, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "usage_type": "api_calls", "quantity": 1, **more}


@pytest.fixture
async def postgres_relay(settings: Settings) -> AsyncIterator[Relay]:
    async with Relay(settings.database_url) as started:
        yield started


@pytest.fixture
async def redis_relay(settings: Settings, redis: RedisConnection) -> AsyncIterator[Relay]:
    async with Relay(settings.redis_url) as started:
        yield started


@pytest.fixture
async def service(
    services: Services, settings: Settings, postgres_relay: Relay, redis_relay: Relay
) -> Service:
    """A gateway behind both relays; the test's own SQL connection is not."""
    started = await services.start(
        msgspec.structs.replace(
            settings, database_url=postgres_relay.url, redis_url=redis_relay.url
        )
    )
    await started.drained()
    return started


async def ready(service: Service) -> tuple[int, Any]:
    async with service.http.get(f"{service.url}/readyz") as response:
        return response.status, await response.json()


async def until_recorded(service: Service, user: str) -> None:
    await taken(service, usage(user, idempotency_key="again"))


async def taken(service: Service, request: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
    """Retries as a client would, until it is taken."""
    async with asyncio.timeout(30):
        while True:
            answer = await service.post("/usage", request)
            if answer[0] == 201:
                return answer
            await asyncio.sleep(0.02)


async def test_without_postgres_warm_accounts_go_on_and_cold_ones_wait(
    service: Service, postgres_relay: Relay
) -> None:
    told = Told()
    warm = usage("warm", organization_id="clinic")
    told.heard(await service.post("/usage", warm))
    told.heard(await service.post("/usage", usage("alone")))
    await postgres_relay.cut()
    for request in (warm, usage("alone"), warm):
        answer = await service.post("/usage", request)
        assert told.heard(answer) == 201
    for path, cold in [
        ("/usage", usage("cold", organization_id="clinic")),
        ("/usage", usage("colder")),
        ("/quota/check", usage("colder")),
    ]:
        status, said, headers = await service.post(path, cold)
        assert (status, said["type"]) == (503, "urn:billing:problem:unavailable")
        assert int(headers["Retry-After"]) >= 1
        assert said["outcome"] == "not_recorded"
    _, batch, _ = await service.post("/usage/batch", {"records": [warm, usage("coldest")]})
    assert [one["status"] for one in batch["results"]] == [201, 503]
    told.heard((201, batch["results"][0], {}))
    status, said = await ready(service)
    assert (status, said["status"], said["postgres"]) == (200, "degraded", "down")
    assert (await service.get("/usage?user_id=alone"))[0] == 503
    assert (await service.get("/quota/alone"))[0] == 200
    await postgres_relay.restore()
    await until_recorded(service, "cold")
    assert (await ready(service))[1]["postgres"] == "up"
    await service.drained()
    await check(service)
    assert told.acked <= {
        row["usage_id"] for row in await service.sql.fetch("SELECT usage_id FROM usage_keys")
    }


async def test_a_probe_does_not_wait_for_a_frozen_postgres(
    service: Service, postgres_relay: Relay
) -> None:
    assert (await ready(service))[1]["postgres"] == "up"
    postgres_relay.flows.clear()
    async with asyncio.timeout(db.COMMAND_TIMEOUT_S):  # a call that waits takes more than that
        for _ in range(2):
            status, said = await ready(service)
            assert (status, said["status"], said["postgres"]) == (200, "degraded", "down")
    postgres_relay.flows.set()
    async with asyncio.timeout(30):
        while True:
            if (await ready(service))[1]["status"] == "ready":
                break
            await asyncio.sleep(0.02)


async def test_without_postgres_a_key_that_cannot_be_looked_up_is_not_refused_for_good(
    service: Service, postgres_relay: Relay
) -> None:
    """Over its limit, a keyed record might be a replay that only the ledger remembers."""
    request = usage("ada") | {"quantity": 10_000, "idempotency_key": "k"}
    assert (await service.post("/usage", request))[0] == 201
    await service.drained()
    await service.redis.run("DEL", *await service.redis.run("KEYS", "receipt:*"))
    await postgres_relay.cut()
    assert (await service.post("/usage", request))[0] in (429, 503)
    assert (await service.post("/usage", usage("ada")))[0] == 429
    await postgres_relay.restore()
    _, _, headers = await taken(service, request)
    assert headers["Idempotent-Replayed"] == "true"


async def test_without_redis_nothing_is_accepted_and_it_comes_back_by_itself(
    service: Service, redis_relay: Relay
) -> None:
    told = Told()
    told.heard(await service.post("/usage", usage("ada")))
    await redis_relay.cut()
    for _ in range(3):
        answer = await service.post("/usage", usage("ada", idempotency_key="down"))
        assert told.heard(answer) == 503
        assert int(answer[2]["Retry-After"]) >= 1
        assert answer[1]["outcome"] in ("unknown", "not_recorded")
    assert (await service.post("/quota/check", usage("ada")))[0] == 503
    assert (await service.get("/quota/ada"))[0] == 503
    assert (await service.get("/usage?user_id=ada"))[0] == 200
    status, said = await ready(service)
    assert (status, said["status"], said["redis"]) == (503, "unready", "down")
    await redis_relay.restore()
    await until_recorded(service, "ada")
    assert (await ready(service))[0] == 200
    await service.drained()
    await check(service)


async def test_replies_lost_on_the_way_double_nothing(service: Service, redis_relay: Relay) -> None:
    """The connection is cut while calls are under way; every caller retries with its key."""
    await service.post("/usage", usage("ada"))

    async def insist(number: int) -> None:
        await taken(service, usage("ada", idempotency_key=f"key-{number}"))

    async def unplug() -> None:
        for _ in range(3):
            await redis_relay.cut()
            await redis_relay.restore()
            await asyncio.sleep(0.01)

    async with asyncio.timeout(60):
        await asyncio.gather(*(insist(number) for number in range(150)), unplug())
    await service.drained()
    counted = "SELECT SUM(quantity) FROM usage_records"
    assert await service.sql.fetchval(counted) == 151
    await check(service)


async def test_a_redis_that_forgets_its_scripts_all_the_time_records_all_the_same(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given the script with the call, so that there is nothing to forget between the two."""
    evaluate = Cluster.eval

    async def lose_and_evaluate(redis: Cluster[Any], *call: Any) -> Any:
        await service.redis.run("SCRIPT FLUSH")
        return await evaluate(redis, *call)

    await service.post("/usage", usage("ada"))
    monkeypatch.setattr(Cluster, "eval", lose_and_evaluate)
    for path in ("/usage", "/quota/check", "/usage"):
        await service.redis.run("SCRIPT FLUSH")
        assert (await service.post(path, usage("ada")))[0] in (200, 201)
    assert await service.drained() == 3
    await check(service)


async def test_a_session_that_postgres_has_ended_is_an_outage(
    settings: Settings, connection: db.Connection
) -> None:
    """Its last words are there and the connection is not lost yet: asyncpg says so in a way of its
    own."""
    async with speechless(settings.database_url) as (url, last_words):
        ended = await db.connect(url)
        pid = await ended.fetchval("SELECT pg_backend_pid()")
        await connection.execute("SELECT pg_terminate_backend($1)", pid)
        await last_words.wait()
        await connection.fetchval("SELECT 1")  # by then they have been read
        with pytest.raises(db.UNAVAILABLE):
            await ended.fetchval("SELECT 1")
        ended.terminate()


@asynccontextmanager
async def speechless(url: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Postgres behind a relay that passes on what it says, but never that it hung up; and when it
    said its last words."""
    parts, last_words = urlsplit(url), asyncio.Event()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            if b"FATAL" in data:
                last_words.set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", parts.port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user = parts.netloc.rpartition("@")[0]
    try:
        yield urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}")), last_words
    finally:
        server.close()


async def test_a_redis_that_restarts_while_postgres_is_down_stays_closed(
    service: Service, postgres_relay: Relay
) -> None:
    await service.post("/usage", usage("ada"))
    await service.drained()
    await postgres_relay.cut()
    for partition in range(service.settings.partitions):
        name = f"meta:{{p{partition:02d}}}"
        await service.redis.run("HSET", name, "replid", "f" * 40)  # as a new server's would differ
    await service.sql.execute("UPDATE stream_cursor SET replid = $1", "f" * 40)
    assert (await service.post("/usage", usage("ada")))[0] == 503
    status, said = await ready(service)
    assert (status, said["status"]) == (503, "unready")
    await postgres_relay.restore()
    await until_recorded(service, "ada")


async def test_the_ledger_waits_out_an_outage_of_postgres(
    service: Service, postgres_relay: Relay, settings: Settings
) -> None:
    stop = asyncio.Event()
    config = msgspec.structs.replace(settings, database_url=postgres_relay.url)
    running = asyncio.create_task(loops.run(config, stop))
    recorded = "SELECT COUNT(*) FROM usage_records"
    try:
        await service.post("/usage", usage("ada"))
        await _until(service.sql, recorded, 1)
        await postgres_relay.cut()
        await service.post("/usage", usage("ada"))
        await postgres_relay.restore()
        await _until(service.sql, recorded, 2)
    finally:
        stop.set()
        await running


async def _until(sql: db.Connection, query: str, expected: int) -> None:
    async with asyncio.timeout(30):
        while True:
            if await sql.fetchval(query) == expected:
                return
            await asyncio.sleep(0.02)
