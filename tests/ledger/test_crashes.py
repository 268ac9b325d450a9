"""The ledger killed at every await of its work: the next one finishes it, exactly once."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast
from uuid import uuid4

from ledger import db, store
from ledger.drain import Drain
from ledger.recovery import recover
from lua import keys
from lua.scripts import Scripts
from lua.standing import standing
from lua.types import RecoveryOutcome
from tests.ledger.crashes import Crash, CrashingConnection, CrashingScripts, Tripwire
from tests.ledger.stream import Partition


def crashing(sql: db.Connection, scripts: Scripts, wire: Tripwire) -> tuple[Any, Any]:
    return cast(Any, CrashingConnection(sql, wire)), cast(Any, CrashingScripts(scripts, wire))


async def add_one_of_each(partition: Partition) -> None:
    """Records of two users, a repeat, another body under an old key, and a malformed entry."""
    twice, reused = partition.fields(units=2), uuid4()
    await partition.add(**twice)
    await partition.add(**partition.fields(usage_id=reused))
    await partition.add(**twice)
    await partition.add(**partition.fields(usage_id=reused, fingerprint=b"g" * 8))
    await partition.add_raw({"what": b"ever"})
    await partition.add(**partition.fields(user="bob", units=3))


async def test_a_drain_killed_at_any_await_is_finished_by_the_next(
    partition: Partition, scripts: Scripts
) -> None:
    sql = partition.sql
    places: list[str] = []
    untold: list[tuple[str, int]] = []
    while True:
        wire = Tripwire(len(places))
        await add_one_of_each(partition)
        connection, failing = crashing(sql, scripts, wire)
        try:
            await Drain(connection, failing, 600).run_once([0])
        except Crash as crash:
            places.append(str(crash))
        drain = Drain(sql, scripts, 600)
        while await drain.run_once([0]):
            pass
        await partition.check()
        rounds = len(places) + (0 if wire.tripped else 1)
        for table, expected in [
            ("usage_records", 3 * rounds),
            ("usage_refunds", rounds),
            ("dead_letters", 2 * rounds),
        ]:
            sql_count = f"SELECT COUNT(*) FROM {table}"  # noqa: S608 - our own names
            assert await sql.fetchval(sql_count) == expected, (wire.name, table)
        # All is drained; only where the crash came before the report does Redis not know yet.
        undrained = (await standing(partition.redis, 0)).undrained
        told = int(await partition.redis.run("HGET", keys.meta(0), "drained"))
        assert undrained == 6 * rounds - told, wire.name
        if undrained:
            untold.append((wire.name, undrained))
        if not wire.tripped:
            break
    assert undrained == 0
    assert untold == [("after commit", 6), ("before trim", 12)]  # each told of by the next report
    said = await partition.redis.run("HMGET", keys.meta(0), "drained", "retained")
    assert [int(one) for one in said] == [6 * rounds, 6 * rounds]  # none is old enough to go
    assert {"before commit", "after commit", "before trim", "after trim", "after read"} <= {*places}
    assert len(places) > 30


async def test_a_recovery_killed_at_any_await_is_finished_by_the_next(
    partition: Partition, scripts: Scripts
) -> None:
    sql, epoch = partition.sql, 1
    for at in range(100):
        await partition.add()
        drain = Drain(sql, scripts, 600)
        while await drain.run_once([0]):
            pass
        await partition.redis.run("FLUSHALL")
        wire = Tripwire(at)
        connection, failing = crashing(sql, scripts, wire)
        with suppress(Crash):
            await recover(connection, failing, 0)
        await recover(sql, scripts, 0)
        row = await store.cursor(sql, 0)
        held, replid = await partition.redis.run("HMGET", keys.meta(0), "epoch", "replid")
        assert (int(held), replid.decode()) == (row.epoch, row.replid), wire.name
        epoch += 1
        assert row.epoch == epoch, wire.name
        while await drain.run_once([0]):
            pass
        losses = "SELECT COUNT(*) FROM audit_events WHERE event_type = 'redis_history_lost'"
        assert await sql.fetchval(losses) == epoch - 1, wire.name
        assert await sql.fetchval("SELECT COUNT(*) FROM usage_records") == at + 1
        if not wire.tripped:
            break
    else:
        raise AssertionError("never came through")
    assert (await recover(sql, scripts, 0)).outcome is RecoveryOutcome.WHOLE
