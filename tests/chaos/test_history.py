"""What a cut of the append-only file takes away, and what it must leave."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from chaos import history
from chaos.check import System
from chaos.told import Told
from gateway.dev.servers import Valkey
from lua.connection import RedisConnection
from lua.scripts import Scripts
from tests.conftest import Service

# As the record script writes: the counter, then the entry.
RECORD = "redis.call('INCR', 'counter'); redis.call('XADD', 'stream', '*', 'event', ARGV[1])"
VOUCH = "redis.call('HSET', 'meta', 'vouched_from', ''); redis.call('INCR', 'vouched')"
ENTRIES = 40
VOUCHED_AFTER = 25


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Valkey]:
    async with Valkey(tmp_path) as started:
        yield started


async def record(server: Valkey, count: int = ENTRIES) -> list[bytes]:
    """Ids of as many entries, in order."""
    ids = [uuid4().bytes for _ in range(count)]
    redis = RedisConnection(server.url)
    for number, one in enumerate(ids):
        if number == VOUCHED_AFTER:
            await redis.run("EVAL", VOUCH, 0)
        await redis.run("EVAL", RECORD, 0, one + b"and the rest of it")
    await redis.close()
    return ids


async def kept(server: Valkey) -> list[bytes]:
    redis = RedisConnection(server.url)
    entries: list[Any] = await redis.run("XRANGE", "stream", "-", "+")
    counter = int(await redis.run("GET", "counter") or 0)
    assert await redis.run("HEXISTS", "meta", "vouched_from"), "a server stays vouched for"
    await redis.close()
    assert counter == len(entries), "a script is there as a whole or not at all"
    return [fields[b"event"][:16] for _, fields in entries]


@pytest.mark.parametrize("seed", range(4))
async def test_a_power_loss_takes_nothing_that_was_answered(server: Valkey, seed: int) -> None:
    ids = await record(server)
    told = Told()
    answered = seed * 10
    told.acked |= set(ids[:answered])
    server.kill()
    await server.wait()
    before = history.size(server.folder)
    history.cut_unanswered(server.folder, told, random.Random(seed))
    assert history.size(server.folder) < before
    await server.start()
    left = await kept(server)
    assert left == ids[: len(left)]
    assert left[:answered] == ids[:answered]
    assert told.lost == set()


@pytest.mark.parametrize("seed", [0, 4, 7, 8])  # from a part of a script to all that may go
async def test_what_a_torn_file_loses_is_known_to_the_last_entry(server: Valkey, seed: int) -> None:
    ids = await record(server)
    told = Told()
    server.kill()
    await server.wait()
    history.cut_anywhere(server.folder, told, random.Random(seed))
    await server.start()
    left = await kept(server)
    assert left == ids[: len(left)]
    assert told.lost == set(ids[len(left) :])
    assert len(left) < len(ids)


async def test_a_flush_notes_what_was_only_in_redis(service: Service) -> None:
    usage = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}
    await service.post("/usage", usage)
    await service.drained()
    _, only_in_redis, _ = await service.post("/usage", usage)
    told = Told()
    system = System(service.sql, service.redis, Scripts(service.redis))
    await history.flush(system, told)
    assert [str(one.hex()) for one in told.lost] == [only_in_redis["usage_id"].replace("-", "")]
    assert await service.redis.run("DBSIZE") == 0
