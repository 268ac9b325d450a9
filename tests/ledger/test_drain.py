"""The drain: every entry becomes one thing, once, however often it is read."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from ledger import db, store
from ledger.booking import BAD_IN_A_ROW, DrainStopped
from ledger.domain.ids import dev_uuid
from ledger.domain.usage import Payload, encode_payload, ms_of
from ledger.drain import Drain
from lua import keys
from lua.scripts import Scripts
from tests.ledger.conftest import RETENTION_S
from tests.ledger.stream import Partition


async def count(sql: db.Connection, table: str) -> int:
    found: int = await sql.fetchval(f"SELECT COUNT(*) FROM {table}")  # noqa: S608 - our own name
    return found


async def drained(drain: Drain) -> int:
    entries = 0
    while batch := await drain.run_once([0]):
        entries += batch
    return entries


async def test_every_entry_becomes_one_row(partition: Partition, drain: Drain) -> None:
    for n in range(20):
        await partition.add(**partition.fields(user=f"u{n % 3}", units=n + 1))
    assert await drained(drain) == 20
    assert await drained(drain) == 0
    assert await count(partition.sql, "usage_records") == 20
    assert await partition.sql.fetchval("SELECT SUM(quantity) FROM usage_records") == 210
    assert (await store.cursor(partition.sql, 0)).drained == 20
    await partition.check()


async def test_what_a_caller_said_is_written_as_it_was_said(
    partition: Partition, drain: Drain
) -> None:
    """Rows go to Postgres as text, where a backslash or a tab could mean something."""
    odd = ["\\N", "\\.", "a\tb", "a\nb\r", "back\\slash \\t", '"quoted" \\"', "é 🩺", "null", ""]
    for text in odd:
        payload = encode_payload(Payload(text, None, {"feature": text}, text))
        await partition.add(**partition.fields() | {"payload": payload})
    assert await drained(drain) == len(odd)
    rows = await partition.sql.fetch("SELECT * FROM usage_records ORDER BY position")
    assert [row["idempotency_key"] for row in rows] == odd
    assert [row["recorded_by"] for row in rows] == odd
    assert [msgspec.json.decode(row["metadata"])["feature"] for row in rows] == odd
    await partition.check()


async def test_more_than_one_batch_is_drained_whole(
    partition: Partition, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.drain.BATCH", 20)
    for _ in range(21):
        await partition.add()
    assert await drain.run_once([0]) == 20
    assert await drain.run_once([0]) == 1
    await partition.check()


async def test_of_two_entries_with_one_id_the_first_counts_also_in_a_large_batch(
    partition: Partition, drain: Drain
) -> None:
    pairs = [partition.fields(user=f"u{n}", units=n + 1) for n in range(30)]
    first = [await partition.add(**fields) for fields in pairs]
    for fields in pairs:
        await partition.add(**fields)
    assert await drain.run_once([0]) == 60
    rows = await partition.sql.fetch("SELECT stream_id FROM usage_records ORDER BY position")
    claimed = await partition.sql.fetch("SELECT stream_id FROM usage_keys")
    assert [row["stream_id"] for row in rows] == first
    assert {row["stream_id"] for row in claimed} == {*first}
    assert await count(partition.sql, "usage_refunds") == 30
    await partition.check()


async def test_a_partition_that_cannot_be_read_does_not_stop_the_others(
    partition: Partition, drain: Drain
) -> None:
    await partition.add()
    await partition.redis.run(
        "HSET", keys.meta(1), "epoch", "damaged", "replid", await replid(partition)
    )
    assert await drain.run_once([1, 0]) == 1
    await partition.check()


async def replid(partition: Partition) -> str:
    found: bytes = await partition.redis.run("HGET", keys.meta(0), "replid")
    return found.decode()


async def test_the_same_id_twice_in_one_batch_is_one_row_and_a_refund(
    partition: Partition, drain: Drain
) -> None:
    fields = partition.fields(units=5)
    await partition.add(**fields)
    again = await partition.add(**fields)
    assert await drained(drain) == 2
    assert await count(partition.sql, "usage_records") == 1
    [refund] = await partition.sql.fetch("SELECT * FROM usage_refunds")
    assert (refund["stream_id"], refund["units"], refund["subject"]) == (
        again,
        5,
        f"user:{dev_uuid('ada')}",
    )
    await partition.check()


async def test_a_repeat_in_a_later_batch_is_a_refund(partition: Partition, drain: Drain) -> None:
    fields = partition.fields()
    await partition.add(**fields)
    await drained(drain)
    await partition.add(**fields)
    await drained(drain)
    assert await count(partition.sql, "usage_records") == 1
    assert await count(partition.sql, "usage_refunds") == 1
    await partition.check()


async def test_a_repeat_within_an_organization_refunds_cap_and_pool(
    partition: Partition, drain: Drain
) -> None:
    who = b"o" + dev_uuid("clinic").bytes + dev_uuid("ada").bytes
    starts = partition.fields()["quota"].split()[2]
    quota = b"5 %d %s %s 5 5 - 0 1" % (partition.now, starts, starts)
    fields = partition.fields() | {"who": who, "quota": quota}
    await partition.add(**fields)
    await partition.add(**fields)
    await drained(drain)
    subjects = await partition.sql.fetch("SELECT subject, units FROM usage_refunds ORDER BY 1")
    clinic = f"org:{dev_uuid('clinic')}"
    assert [tuple(row) for row in subjects] == [
        (clinic, 5),
        (f"{clinic}:user:{dev_uuid('ada')}", 5),
    ]
    await partition.check()


@pytest.mark.parametrize("same_batch", [True, False])
async def test_another_body_under_an_old_key_is_parked(
    partition: Partition, drain: Drain, same_batch: bool
) -> None:
    usage_id = uuid4()
    await partition.add(**partition.fields(usage_id=usage_id))
    if not same_batch:
        await drained(drain)
    other = partition.fields(usage_id=usage_id, fingerprint=b"g" * 8, units=7)
    await partition.add(**other)
    await drained(drain)
    [letter] = await partition.sql.fetch("SELECT * FROM dead_letters")
    assert (letter["units"], letter["subject"], letter["status"]) == (
        7,
        f"user:{dev_uuid('ada')}",
        "open",
    )
    assert "idempotency key" in letter["reason"]
    assert await count(partition.sql, "usage_refunds") == 0
    await partition.check()


BAD: dict[str, dict[str, Any]] = {
    "no id": {"id": b""},
    "short id": {"id": b"123"},
    "no quota": {"quota": b""},
    "quota of words": {"quota": b"many"},
    "quota of a float": {"quota": b"1.5 1 1 - 1 - - 0 1"},
    "who of nobody": {"who": b"x"},
    "type that is not text": {"type": b"\xff\xfe"},
    "payload that is not msgpack": {"payload": b"\xc1"},
    "terms that are not msgpack": {"terms": b"\xc1"},
    "no terms": {"terms": b""},
    "an unknown zone": {"terms": b"\x96\xc0\xa5basic\x01\xce\x00\x0b\x24\x08\xa5month\xa4Mars"},
    "times beyond the calendar": {"quota": b"1 9999999999999999 9999999999999999 - 1 - - 0 1"},
    "a month beyond the calendar": {
        "quota": b"1 9999999999999999 1 - 1 - - 0 1",
        "payload": encode_payload(Payload(None, 1_700_000_000_000, None, "test")),
    },
    "a period beyond the calendar": {"quota": b"1 1700000000000 9999999999999999 - 1 - - 0 1"},
    "NUL in the name of the caller": {
        "payload": encode_payload(Payload(None, None, None, "a\x00b"))
    },
    "zero units": {"quota": b"0 1700000000000 1698796800000 - 1 - - 0 1"},
    "nothing known": {},
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_entry_is_parked_and_the_rest_goes_on(
    partition: Partition, drain: Drain, name: str
) -> None:
    await partition.add()
    if BAD[name]:
        bad = await partition.add(**BAD[name])
    else:
        bad = await partition.add_raw({"what": b"ever"})
    await partition.add()
    assert await drained(drain) == 3
    assert await count(partition.sql, "usage_records") == 2
    parked = await partition.sql.fetch("SELECT stream_id, status FROM dead_letters")
    assert [tuple(row) for row in parked] == [(bad, "open")]


async def test_too_many_bad_entries_in_a_row_stop_the_drain_and_nothing_is_skipped(
    partition: Partition, drain: Drain
) -> None:
    await partition.add()
    for _ in range(BAD_IN_A_ROW + 1):
        await partition.add_raw({"what": b"ever"})
    for _ in range(2):
        with pytest.raises(DrainStopped):
            await drain.partition(0)
        assert (await store.cursor(partition.sql, 0)).last_id == "0-0"
        assert await count(partition.sql, "usage_records") == 0
        assert await count(partition.sql, "dead_letters") == 0


async def test_as_many_bad_entries_as_allowed_are_parked(
    partition: Partition, drain: Drain
) -> None:
    for _ in range(2):
        for _ in range(BAD_IN_A_ROW):
            await partition.add_raw({"what": b"ever"})
        await partition.add()
    await drained(drain)
    assert await count(partition.sql, "dead_letters") == 2 * BAD_IN_A_ROW
    assert await count(partition.sql, "usage_records") == 2


async def test_an_unknown_usage_type_stops_the_drain_until_it_is_known(
    partition: Partition, drain: Drain
) -> None:
    await partition.add()
    await partition.add(type=b"brand_new")
    with pytest.raises(DrainStopped):
        await drain.partition(0)
    assert (await store.cursor(partition.sql, 0)).last_id == "0-0"
    await store.insert_usage_type(partition.sql, "brand_new", 2, "")
    assert await drained(drain) == 2
    await partition.check()


async def test_months_are_made_on_demand(
    partition: Partition, drain: Drain, connection: db.Connection, scripts: Scripts
) -> None:
    for year, month in [(2031, 1), (2031, 12), (2031, 1), (2032, 2)]:
        instant = ms_of(
            (await connection.fetchval("SELECT NOW()")).replace(year=year, month=month, day=28)
        )
        await partition.add(**partition.fields(at=instant))
    await drained(drain)
    await partition.add(**partition.fields(at=instant + 86_400_000 * 2))
    await drained(Drain(connection, scripts, RETENTION_S))
    tables = await connection.fetch(
        "SELECT DISTINCT tableoid::REGCLASS::TEXT AS name FROM usage_records ORDER BY 1"
    )
    assert [row["name"] for row in tables] == [
        "usage_records_2031_01",
        "usage_records_2031_12",
        "usage_records_2032_02",
        "usage_records_2032_03",
    ]
    await partition.check()


async def test_two_drains_of_the_same_partitions_write_each_entry_once(
    partition: Partition, database_url: str, scripts: Scripts
) -> None:
    for n in range(300):
        await partition.add(**partition.fields(user=f"u{n % 5}"))
    drains = []
    for _ in range(3):
        drains.append((connection := await db.connect(database_url), Drain(connection, scripts, 0)))

    async def work(drain: Drain) -> int:
        entries = 0
        for _ in range(10):
            entries += await drain.run_once([0])
        return entries

    try:
        entries = await asyncio.gather(*(work(drain) for _, drain in drains))
    finally:
        for connection, _ in drains:
            await connection.close()
    assert sum(entries) == 300
    assert await count(partition.sql, "usage_records") == 300
    await partition.check()


async def test_reading_again_after_a_rewind_adds_nothing(
    partition: Partition, drain: Drain, connection: db.Connection, scripts: Scripts
) -> None:
    repeated = partition.fields()
    for fields in (repeated, partition.fields(), repeated):
        await partition.add(**fields)
    await partition.add_raw({"what": b"ever"})
    await drained(drain)
    tables = ("usage_records", "usage_totals", "usage_keys", "usage_refunds", "dead_letters")
    before = [await connection.fetch(f"TABLE {table}") for table in (*tables, "audit_seals")]
    await connection.execute("UPDATE stream_cursor SET last_id = '0-0', drained = 0")
    assert await drained(Drain(connection, scripts, RETENTION_S)) == 4
    after = [await connection.fetch(f"TABLE {table}") for table in (*tables, "audit_seals")]
    assert before == after
    await partition.add()
    await drained(drain)
    await partition.check()


@pytest.mark.parametrize("units", [2**53 - 1, 10**14])
async def test_the_largest_quantities_can_be_drained(
    partition: Partition, drain: Drain, units: int
) -> None:
    """Units up to 2^53 - 1 are admitted; of a whole type that is a quantity of 16 digits."""
    await partition.add(**partition.fields(units=units))
    assert await drained(drain) == 1
    assert await partition.sql.fetchval("SELECT quantity FROM usage_records") == units


async def test_a_stopped_partition_does_not_hold_up_the_others(
    partition: Partition, drain: Drain
) -> None:
    for _ in range(BAD_IN_A_ROW + 1):
        await partition.add_raw({"what": b"ever"})
    other = Partition(partition.redis, partition.sql, 1)
    await partition.sql.execute("INSERT INTO stream_cursor (partition) VALUES (1)")
    await drain.run_once([1])  # vouches
    await other.synchronise()
    await other.add()
    assert [await drain.run_once([0, 1]) for _ in range(2)] == [1, 0]
    assert await count(partition.sql, "usage_records") == 1


async def test_entries_of_an_earlier_build_stop_the_drain_at_once(
    partition: Partition, drain: Drain
) -> None:
    await partition.add_raw({"id": b"i" * 16, "who": b"u" * 17, "type": b"api_calls"})
    with pytest.raises(DrainStopped, match="earlier build"):
        await drain.partition(partition.number)
    assert await count(partition.sql, "dead_letters") == 0
