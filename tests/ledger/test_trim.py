"""Trimming: only what was drained and committed long enough ago, and the floor remembers it."""

from __future__ import annotations

import pytest

from ledger import db
from ledger.drain import Drain
from ledger.recovery import recover
from lua import keys
from lua.scripts import Scripts
from tests.ledger.stream import Partition


async def length(partition: Partition) -> int:
    return int(await partition.redis.run("XLEN", keys.stream(0)))


async def floor(partition: Partition) -> str:
    [found] = await partition.redis.run("HMGET", keys.meta(0), "floor")
    return str(found.decode())


async def test_within_the_retention_nothing_is_trimmed(partition: Partition, drain: Drain) -> None:
    for _ in range(3):
        await partition.add()
        await drain.run_once([0])
    assert (await length(partition), await floor(partition)) == (3, "0-0")


async def test_after_it_everything_up_to_an_earlier_commit_is_trimmed(
    partition: Partition, connection: db.Connection, scripts: Scripts
) -> None:
    drain = Drain(connection, scripts, 0)
    ids = []
    for _ in range(4):
        ids.append(await partition.add())
        await drain.run_once([0])
    assert await floor(partition) == ids[2]
    assert await length(partition) == 1
    undrained = await partition.add()
    assert await length(partition) == 2
    assert await partition.last_id() == undrained


async def test_retention_counts_from_the_commit_of_the_cursor(
    partition: Partition, drain: Drain
) -> None:
    first = await partition.add()
    await partition.sql.execute("UPDATE stream_cursor SET trim_at = NOW() - INTERVAL '601 s'")
    await drain.run_once([0])  # nothing older to trim yet: this commit is the first candidate
    assert await length(partition) == 1
    await partition.add()
    await drain.run_once([0])
    assert await length(partition) == 2
    await partition.sql.execute("UPDATE stream_cursor SET trim_at = NOW() - INTERVAL '601 s'")
    await partition.add()
    await drain.run_once([0])
    assert (await length(partition), await floor(partition)) == (2, first)


@pytest.mark.parametrize("retention", [0, 600])
async def test_undrained_entries_are_never_trimmed(
    partition: Partition, connection: db.Connection, scripts: Scripts, retention: int
) -> None:
    drain = Drain(connection, scripts, retention)
    for _ in range(3):
        await partition.add()
        await drain.run_once([0])
    waiting = [await partition.add() for _ in range(5)]
    cursor = await connection.fetchval("SELECT last_id FROM stream_cursor")
    assert await floor(partition) <= cursor
    tail = await scripts.read(0, after=cursor, count=100)
    assert [entry_id for entry_id, _ in tail.entries] == waiting


async def test_a_server_that_was_not_read_from_trims_nothing(
    partition: Partition, drain: Drain, scripts: Scripts
) -> None:
    first = await partition.add()
    await drain.run_once([0])
    assert await scripts.trim(0, replid="f" * 40, drained=1, through=first) == -1
    assert await length(partition) == 1


async def test_a_trimmed_stream_survives_a_recovery_of_the_same_history(
    partition: Partition, connection: db.Connection, scripts: Scripts
) -> None:
    drain = Drain(connection, scripts, 0)
    for _ in range(3):
        await partition.add()
        await drain.run_once([0])
    before = await floor(partition)
    await recover(connection, scripts, 0)
    assert await floor(partition) == before
    assert await connection.fetchval("SELECT epoch FROM stream_cursor") == 1
