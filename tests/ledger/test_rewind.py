"""The database is older than Redis knew it: restored from a backup. What is retained is drained
again, what is no longer there is not passed over in silence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from ledger import db, store
from ledger.drain import Drain, HistoryGap
from ledger.recovery import Superseded, recover
from lua import keys
from lua.scripts import Scripts
from lua.standing import standing
from tests.ledger.stream import Partition

TABLES = (
    "usage_records", "usage_keys", "usage_totals", "usage_refunds", "dead_letters",
    "audit_seals", "audit_events", "audit_chains", "stream_cursor",
)  # fmt: skip

Rewind = Callable[[], Awaitable[None]]


@pytest.fixture
async def remember(connection: db.Connection) -> Callable[[], Awaitable[Rewind]]:
    """Keeps the ledger as it is; what it returns brings it back to that, as a restore does."""

    async def keep() -> Rewind:
        for table in TABLES:
            await connection.execute(f"CREATE TABLE kept_{table} AS TABLE {table}")

        async def rewind() -> None:
            for table in TABLES:
                await connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own name
                columns = await connection.fetchval(
                    "SELECT string_agg(quote_ident(column_name), ',') FROM"
                    " information_schema.columns WHERE table_name = $1 AND is_identity = 'NO'",
                    table,
                )
                copy = f"INSERT INTO {table} ({columns}) SELECT {columns} FROM kept_{table}"  # noqa: S608
                await connection.execute(copy)

        return rewind

    return keep


async def undrained(partition: Partition, scripts: Scripts) -> tuple[int, int]:
    """Entries that wait, as the cap counts them, and as they are."""
    cursor = await store.cursor(partition.sql, 0)
    tail = await scripts.read(0, after=cursor.last_id, count=100_000)
    return (await standing(partition.redis, 0)).undrained, len(tail.entries)


async def test_what_is_retained_is_drained_again_exactly_once(
    partition: Partition, drain: Drain, scripts: Scripts, remember: Callable[[], Awaitable[Rewind]]
) -> None:
    await partition.add()
    await drain.run_once([0])
    rewind = await remember()
    again = await partition.add()
    await drain.run_once([0])
    await partition.add_raw({"event": b"damaged"})
    await partition.add(id=(await _usage_ids(partition))[again])  # its receipt had expired
    await drain.run_once([0])
    await rewind()
    assert await Drain(partition.sql, scripts, 600).run_once([0]) == 3
    await partition.check()
    for table, rows in [("usage_records", 2), ("dead_letters", 1), ("usage_refunds", 1)]:
        sql = f"SELECT COUNT(*) FROM {table}"  # noqa: S608 - our own name
        assert await partition.sql.fetchval(sql) == rows


async def test_the_cap_counts_what_waits_from_the_first_batch_on(
    partition: Partition,
    drain: Drain,
    scripts: Scripts,
    remember: Callable[[], Awaitable[Rewind]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Redis still believes that all was drained: `drained` goes back with the first batch."""
    for _ in range(2):
        await partition.add()
        await drain.run_once([0])
    rewind = await remember()
    for _ in range(5):
        await partition.add()
        await drain.run_once([0])
    await rewind()
    monkeypatch.setattr("ledger.drain.BATCH", 2)
    # Due at once: the trim of what was committed before the backup comes with the first batch.
    restarted = Drain(partition.sql, scripts, 0)
    for left in (3, 1, 0):
        await restarted.run_once([0])
        assert await undrained(partition, scripts) == (left, left)
    await partition.add()
    assert await undrained(partition, scripts) == (1, 1)


async def test_what_is_no_longer_there_stops_the_drain_loudly_and_for_good(
    partition: Partition, scripts: Scripts, remember: Callable[[], Awaitable[Rewind]]
) -> None:
    drain = Drain(partition.sql, scripts, 0)
    await partition.add()
    await drain.run_once([0])
    rewind = await remember()
    for _ in range(3):
        await partition.add()
        await drain.run_once([0])
    await rewind()
    before = await store.cursor(partition.sql, 0)
    restarted = Drain(partition.sql, scripts, 0)
    with capture_logs() as logs:
        assert await restarted.run_once([0]) == 0
    [stopped] = [one for one in logs if one["event"] == "partition_stopped"]
    assert stopped["log_level"] == "error"
    assert (
        before.last_id in stopped["reason"]
        and "Redis has only what came after" in stopped["reason"]
    )
    for _ in range(2):
        with pytest.raises(HistoryGap):
            await restarted.partition(0)
    assert await store.cursor(partition.sql, 0) == before


async def test_a_gap_is_found_even_when_nothing_waits_in_the_stream(
    partition: Partition, scripts: Scripts, remember: Callable[[], Awaitable[Rewind]]
) -> None:
    rewind = await remember()
    last = await partition.add()
    await Drain(partition.sql, scripts, 0).run_once([0])
    cursor = await store.cursor(partition.sql, 0)
    await scripts.trim(0, replid=cursor.replid, drained=1, through=last)
    assert await partition.redis.run("XLEN", keys.stream(0)) == 0
    await rewind()
    with capture_logs() as logs:
        await Drain(partition.sql, scripts, 0).run_once([0])
    assert "partition_stopped" in [one["event"] for one in logs]


async def test_a_redis_that_restarted_since_is_recovered_before_it_is_drained(
    partition: Partition, drain: Drain, scripts: Scripts, remember: Callable[[], Awaitable[Rewind]]
) -> None:
    await partition.add()
    await drain.run_once([0])
    await _believes(partition, "a" * 40)
    rewind = await remember()
    await recover(partition.sql, scripts, 0)
    after = await store.cursor(partition.sql, 0)
    await partition.add()
    await drain.run_once([0])
    await rewind()
    restarted = Drain(partition.sql, scripts, 600)
    assert await restarted.run_once([0]) == 0
    found = await store.cursor(partition.sql, 0)
    assert (found.replid, found.epoch) == (after.replid, after.epoch)
    assert await restarted.run_once([0]) == 1
    await partition.check()


async def test_a_redis_that_restarted_more_often_waits_for_an_operator(
    partition: Partition, drain: Drain, scripts: Scripts, remember: Callable[[], Awaitable[Rewind]]
) -> None:
    await _believes(partition, "a" * 40)
    rewind = await remember()
    await recover(partition.sql, scripts, 0)
    await _believes(partition, "b" * 40)
    await recover(partition.sql, scripts, 0)
    await rewind()
    with pytest.raises(Superseded):
        await drain.partition(0)


async def test_history_lost_since_is_a_gap_and_stays_one_when_it_is_lost_again(
    partition: Partition, drain: Drain, scripts: Scripts, remember: Callable[[], Awaitable[Rewind]]
) -> None:
    await partition.add()
    await drain.run_once([0])
    rewind = await remember()
    last = await partition.add()
    await drain.run_once([0])
    await partition.redis.run("DEL", keys.stream(0), keys.meta(0))
    assert (await recover(partition.sql, scripts, 0)).epoch == 2
    await rewind()
    restarted = Drain(partition.sql, scripts, 600)
    await restarted.run_once([0])  # recovers: the server is believed, the gap stays
    with pytest.raises(HistoryGap, match=last):
        await restarted.partition(0)
    await partition.redis.run("DEL", keys.stream(0))
    assert (await recover(partition.sql, scripts, 0)).epoch == 3
    assert keys.before(last, await partition.last_id())  # the next cursor, once it is accepted
    with pytest.raises(HistoryGap, match=last):
        await restarted.partition(0)


async def _believes(partition: Partition, former: str) -> None:
    """As if the server had restarted since it was vouched for under its `former` id."""
    await partition.redis.run("HSET", keys.meta(0), "replid", former)
    await partition.sql.execute("UPDATE stream_cursor SET replid = $1", former)


async def _usage_ids(partition: Partition) -> dict[str, bytes]:
    rows = await partition.sql.fetch("SELECT stream_id, usage_id FROM usage_keys")
    return {row["stream_id"]: row["usage_id"].bytes for row in rows}
