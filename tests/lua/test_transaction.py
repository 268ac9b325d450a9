"""Several commands of one instant, over either connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.dev.servers import Valkey
from lua import keys
from lua.connection import NoScript, RedisConnection, RedisUnavailable
from lua.multiplexer import Multiplexer
from lua.scripts import Scripts
from tests.lua.kit import PARTITION, USER, Bench, event, limit


@pytest.fixture(params=[RedisConnection, Multiplexer])
async def connection(
    request: pytest.FixtureRequest, valkey: Valkey
) -> AsyncIterator[RedisConnection | Multiplexer]:
    made: RedisConnection | Multiplexer = request.param(valkey.url)
    yield made
    await made.close()


async def test_replies_come_raw_and_in_order(
    bench: Bench, connection: RedisConnection | Multiplexer
) -> None:
    await bench.server.run("XADD", bench.stream_key, "5-0", "recovery", "1")
    said = await connection.transaction(
        [("XRANGE", bench.stream_key, "-", "+"), ("XLEN", bench.stream_key)]
    )
    assert said == [[[b"5-0", [b"recovery", b"1"]]], 1]


async def test_a_read_is_one_instant_of_one_server(
    bench: Bench, connection: RedisConnection | Multiplexer
) -> None:
    """A master that was superseded between the two must not move the cursor with its entries."""
    await bench.load(USER, limit(most=None))
    await bench.record(event(1))
    scripts = Scripts(connection)
    await scripts.read(PARTITION, after="0-0", count=1)  # the script is known from now on
    await bench.server.run("CONFIG", "RESETSTAT")
    assert len((await scripts.read(PARTITION, after="0-0", count=1)).entries) == 1
    counted = await bench.server.run("INFO", "commandstats")
    for name in ("multi", "exec", "evalsha", "xrange"):
        assert counted[f"cmdstat_{name}"]["calls"] == 1


async def test_a_server_that_forgot_the_script_is_given_it(
    bench: Bench, connection: RedisConnection | Multiplexer
) -> None:
    await bench.server.run("SCRIPT FLUSH")
    with pytest.raises(NoScript):
        await connection.transaction([("EVALSHA", "0" * 40, 0)])
    reads = [Scripts(connection).read(PARTITION, after="0-0", count=1) for _ in range(3)]
    assert [one.epoch for one in await asyncio.gather(*reads)] == [1, 1, 1]


@pytest.mark.parametrize("refused", [("XLEN", keys.meta(PARTITION)), ("NO-SUCH-COMMAND",)])
async def test_what_is_refused_is_known_to_have_done_nothing_and_the_next_is_served(
    bench: Bench, connection: RedisConnection | Multiplexer, refused: tuple[str, ...]
) -> None:
    with pytest.raises(RedisUnavailable, match=r"^Redis refused: (WRONGTYPE|ERR|unknown)$") as one:
        await connection.transaction([("XLEN", bench.stream_key), refused])
    assert not one.value.outcome_unknown
    assert await connection.transaction([("XLEN", bench.stream_key)]) == [0]


@pytest.mark.parametrize("made", [RedisConnection, Multiplexer])
async def test_a_server_that_is_not_there_is_unavailable(
    made: type[RedisConnection] | type[Multiplexer],
) -> None:
    connection = made("redis://127.0.0.1:1")
    with pytest.raises(RedisUnavailable):
        await connection.transaction([("XLEN", "usage:{p07}")])
    await connection.close()
