"""Settling the dead letters of a partition: in which order they become records, which way only, and
beside whom."""

from __future__ import annotations

import asyncio
from importlib import import_module
from uuid import uuid4

import pytest

from ledger import db, store
from ledger.dead_letters import NotOpen, Outcome
from ledger.domain.usage import at_ms
from ledger.drain import Drain
from lua.scripts import Scripts
from tests.ledger.letters import REFUSED, accept, decider, events, refuse
from tests.ledger.stream import Partition


async def test_another_body_under_an_old_key_stays_open(
    partition: Partition, drain: Drain, scripts: Scripts
) -> None:
    usage_id = uuid4()
    await partition.add(**partition.fields(usage_id=usage_id))
    await partition.add(**partition.fields(usage_id=usage_id, fingerprint=b"g" * 8))
    await drain.run_once([0])
    [letter] = await store.open_dead_letters(partition.sql)
    done = await decider(partition.sql, scripts).retry(letter)
    assert done.outcome is Outcome.STILL_OPEN
    assert "idempotency key" in done.reason
    assert await store.open_dead_letters(partition.sql) == [letter]
    [(_, _, details)] = await events(partition.sql)
    assert details["outcome"] == "still_open"
    await partition.check()


async def test_a_letter_that_still_cannot_be_written_says_the_new_reason(
    partition: Partition, drain: Drain, scripts: Scripts
) -> None:
    await refuse(partition.sql)
    await partition.add(**partition.fields(units=REFUSED))
    await drain.run_once([0])
    [letter] = await store.open_dead_letters(partition.sql)
    await partition.sql.execute("UPDATE dead_letters SET reason = 'an old one'")
    done = await decider(partition.sql, scripts).retry(letter)
    assert done.outcome is Outcome.STILL_OPEN
    stored = await store.dead_letter(partition.sql, letter)
    assert stored is not None
    assert (stored.status, stored.reason) == ("open", done.reason)
    assert "CheckViolation" in done.reason
    await partition.check()


async def test_retried_records_take_the_next_places_and_the_chain_goes_on(
    partition: Partition, drain: Drain, scripts: Scripts
) -> None:
    await refuse(partition.sql)
    for units in (1, REFUSED, 2, REFUSED):
        await partition.add(**partition.fields(units=units))
    await drain.run_once([0])
    before = await store.cursor(partition.sql, 0)
    await accept(partition.sql)
    first, second = await store.open_dead_letters(partition.sql)
    decide = decider(partition.sql, scripts)
    await decide.retry(second)
    await partition.add(**partition.fields(units=3))
    await drain.run_once([0])
    await decide.retry(first)
    await partition.add(**partition.fields(units=4))
    await drain.run_once([0])
    await partition.check()
    after = await store.cursor(partition.sql, 0)
    assert (before.drained, after.drained, after.position, after.revision) == (4, 6, 6, 2)
    order = await partition.sql.fetch("SELECT quantity FROM usage_records ORDER BY position")
    assert [int(row["quantity"]) for row in order] == [1, 2, REFUSED, 3, REFUSED, 4]


async def test_letters_retried_while_two_drains_work_become_one_record_each(
    partition: Partition, database_url: str, drain: Drain, scripts: Scripts
) -> None:
    await refuse(partition.sql)
    for n in range(30):
        await partition.add(**partition.fields(units=REFUSED if n % 3 == 0 else 1))
    await drain.run_once([0])
    await accept(partition.sql)
    letters = await store.open_dead_letters(partition.sql)
    assert len(letters) == 10
    connections = [await db.connect(database_url) for _ in range(4)]

    async def work(connection: db.Connection) -> None:
        other = Drain(connection, scripts, 0)
        for _ in range(20):
            await partition.add()
            await other.run_once([0])

    async def retry(connection: db.Connection) -> None:
        for letter in letters:
            await decider(connection, scripts).retry(letter)

    await asyncio.gather(*(work(one) for one in connections[:2]), *map(retry, connections[2:]))
    for one in connections:
        await one.close()
    while await drain.run_once([0]):
        pass
    assert await partition.sql.fetchval("SELECT COUNT(*) FROM usage_records") == 70
    assert len(await events(partition.sql)) == 10


async def test_a_partition_that_is_being_drained_is_waited_for_and_not_for_ever(
    partition: Partition,
    database_url: str,
    drain: Drain,
    scripts: Scripts,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await partition.add_raw({"what": b"ever"})
    await drain.run_once([0])
    [letter] = await store.open_dead_letters(partition.sql)
    monkeypatch.setattr(import_module("ledger.store.cursor"), "LOCK_TIMEOUT", "50ms")
    busy = await db.connect(database_url)
    try:
        async with busy.transaction():
            assert await store.lease_cursor(busy, 0, 600) is not None
            for settle in (
                decider(partition.sql, scripts).retry(letter),
                decider(partition.sql, scripts).discard(letter, "x"),
            ):
                with pytest.raises(db.LockNotAvailable):
                    await settle
    finally:
        await busy.close()
    assert await store.open_dead_letters(partition.sql) == [letter]
    assert await events(partition.sql) == []


async def test_a_letter_is_settled_one_way_only(
    partition: Partition, drain: Drain, scripts: Scripts
) -> None:
    await refuse(partition.sql)
    for _ in range(2):
        await partition.add(**partition.fields(units=REFUSED))
    await drain.run_once([0])
    await accept(partition.sql)
    first, second = await store.open_dead_letters(partition.sql)
    decide = decider(partition.sql, scripts)
    await decide.retry(first)
    await decide.discard(second, "x")
    with pytest.raises(NotOpen, match="was retried"):
        await decide.discard(first, "x")
    with pytest.raises(NotOpen, match="was discarded"):
        await decide.retry(second)
    with pytest.raises(NotOpen, match="there is no dead letter 99"):
        await decide.retry(99)
    assert (await decide.retry(first)).outcome is Outcome.BEFORE
    assert (await decide.discard(second, "x")).outcome is Outcome.BEFORE
    assert len(await events(partition.sql)) == 2
    await partition.check()


async def test_a_month_that_has_no_table_any_more_is_made_for_a_retry(
    partition: Partition, drain: Drain, scripts: Scripts
) -> None:
    await refuse(partition.sql)
    await partition.add(**partition.fields(units=REFUSED))
    await drain.run_once([0])
    await accept(partition.sql)
    month = at_ms(partition.now).strftime("%Y_%m")
    await partition.sql.execute(f"DROP TABLE usage_records_{month}")
    [letter] = await store.open_dead_letters(partition.sql)
    assert (await decider(partition.sql, scripts).retry(letter)).outcome is Outcome.RECORDED
    await partition.check()
