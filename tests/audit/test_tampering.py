"""Whatever somebody does to the rows, verify says which; of chains that nobody touched, nothing."""
# ruff: noqa: S608 - the statements are put together of our own text

from __future__ import annotations

import pytest

from ledger.audit import verify
from ledger.audit.findings import MOST
from tests.audit.conftest import EVENTS, Trail, reseal_as_before

ROW = "partition = {p} AND position = {n}"
COLUMNS = (
    "usage_id, user_id, organization_id, usage_type, quantity, recorded_at, occurred_at,"
    " billing_period, quota_period, pool_period, subscription_id, plan_tier, plan_version,"
    " used_after, pool_used_after, quota_remaining, quota_exceeded, enforced, metadata,"
    " idempotency_key, recorded_by, reversal_of, partition, position, stream_id"
)
COPY = f"INSERT INTO usage_records ({COLUMNS}) SELECT {COLUMNS} FROM usage_records"
# What is done to a partition's records, at which place it shows, and how that is said.
USAGE = {
    "amount": ("UPDATE usage_records SET quantity = 99 WHERE " + ROW, 2, "not the record"),
    "a part of a unit": (
        "UPDATE usage_records SET quantity = quantity + 0.000001 WHERE " + ROW, 2, "not the record"
    ),
    "a microsecond": (
        "UPDATE usage_records SET occurred_at = occurred_at + INTERVAL '1 us' WHERE " + ROW,
        2, "not the record",
    ),
    "metadata": (
        "UPDATE usage_records SET metadata = jsonb_build_object('feature', 'x') WHERE " + ROW,
        2, "not the record",
    ),
    "used after": ("UPDATE usage_records SET used_after = 0 WHERE " + ROW, 2, "not the record"),
    "who": ("UPDATE usage_records SET recorded_by = 'x' WHERE " + ROW, 2, "not the record"),
    "type": ("UPDATE usage_records SET usage_type = 'nothing' WHERE " + ROW, 2, "not the record"),
    "first deleted": (
        "DELETE FROM usage_records WHERE partition = {p} AND position = 1", 1, "record is missing"
    ),
    "middle deleted": ("DELETE FROM usage_records WHERE " + ROW, 2, "record is missing"),
    "last deleted": (
        "DELETE FROM usage_records WHERE partition = {p} AND position = 6", 6, "record is missing"
    ),
    "swapped": (
        "UPDATE usage_records SET position = 5 - position WHERE partition = {p}"
        " AND position IN (2, 3)", 2, "it was sealed at 3",
    ),
    "inserted": (
        COPY.replace("SELECT usage_id,", "SELECT gen_random_uuid(),") + " WHERE " + ROW,
        2, "more than one record",
    ),
    "appended": (
        COPY.replace("SELECT usage_id,", "SELECT gen_random_uuid(),").replace(
            "partition, position, stream_id FROM", "partition, 7, stream_id FROM")
        + " WHERE " + ROW, 7, "covered by no seal",
    ),
    "before the first": (
        COPY.replace("SELECT usage_id,", "SELECT gen_random_uuid(),").replace(
            "partition, position, stream_id FROM", "partition, -1, stream_id FROM")
        + " WHERE " + ROW, -1, "covered by no seal",
    ),
    "moved to a partition that there is not": (
        "UPDATE usage_records SET partition = 99 WHERE " + ROW, 2, "missing",
    ),
    "seal edited": (
        "UPDATE audit_seals SET head = sha256('x') WHERE partition = {p} AND last_position = 3",
        3, "its seal was changed",
    ),
    "seal of another version": (
        "UPDATE audit_seals SET version = 1 WHERE partition = {p} AND last_position = 3", 3, "",
    ),
    "seal of a version that there is not": (
        "UPDATE audit_seals SET version = 9 WHERE partition = {p} AND last_position = 3",
        3, "version 9",
    ),
    "seal deleted": (
        "DELETE FROM audit_seals WHERE partition = {p} AND last_position = 3", 1, "no seal",
    ),
    "newest seal deleted": (
        "DELETE FROM audit_seals WHERE partition = {p} AND last_position = 6", 4, "no seal",
    ),
    "seal over more than there is": (
        "UPDATE audit_seals SET records = 999999999, last_position = 1000000001"
        " WHERE partition = {p} AND last_position = 6", 1_000_000_001, "says that it covers",
    ),
    "cut off": (
        "DELETE FROM audit_seals WHERE partition = {p} AND last_position = 6; DELETE FROM"
        " usage_records WHERE partition = {p} AND position > 3", 4, "no seal covers this place",
    ),
    "cut off, and no row left": (
        "DELETE FROM audit_seals WHERE partition = {p}; DELETE FROM usage_records"
        " WHERE partition = {p}", 1, "no seal covers this place, and so are all up to 6",
    ),
    "head edited": (
        "UPDATE stream_cursor SET audit_head = sha256('x') WHERE partition = {p}",
        6, "cursor's head",
    ),
}  # fmt: skip
# The same, of the chain of events.
EVENT = {
    "details": ("UPDATE audit_events SET details = '{}' WHERE sequence = 3", 3, "changed since"),
    "actor": ("UPDATE audit_events SET actor = 'x' WHERE sequence = 3", 3, "changed since"),
    "time": (
        "UPDATE audit_events SET noted_at = noted_at - INTERVAL '1 us' WHERE sequence = 3",
        3, "changed since",
    ),
    "id": (
        "UPDATE audit_events SET event_id = gen_random_uuid() WHERE sequence = 3",
        3, "changed since",
    ),
    "first deleted": ("DELETE FROM audit_events WHERE sequence = 1", 1, "is missing"),
    "middle deleted": ("DELETE FROM audit_events WHERE sequence IN (3, 4)", 3, "up to 4"),
    "last deleted": (f"DELETE FROM audit_events WHERE sequence = {EVENTS}", EVENTS, "is missing"),
    "swapped": (
        "UPDATE audit_events SET sequence = 1000 WHERE sequence = 2;"
        "UPDATE audit_events SET sequence = 2 WHERE sequence = 3;"
        "UPDATE audit_events SET sequence = 3 WHERE sequence = 1000", 2, "changed since",
    ),
    "copied to the end": (
        "INSERT INTO audit_events (event_type, actor, details, occurred_at, sequence, version,"
        " previous, hash) SELECT event_type, actor, details, occurred_at, sequence + 5, version,"
        " previous, hash FROM audit_events WHERE sequence = 2", 7, "changed since",
    ),
    "its hash as well": (
        "UPDATE audit_events SET actor = 'x', hash = sha256('made to fit') WHERE sequence = 3",
        4, "does not follow",
    ),
    "version": ("UPDATE audit_events SET version = 2 WHERE sequence = 3", 3, "by version 2"),
    "unsealed again": (
        "UPDATE audit_events SET sequence = NULL, version = NULL, previous = NULL, hash = NULL"
        " WHERE sequence = 3", 3, "is missing",
    ),
    "all deleted": ("DELETE FROM audit_events", 1, "and so are all up to 6"),
    "name of the chain": ("UPDATE audit_chains SET chain = 'other'", None, "another name: 'other'"),
    "no chain": ("DELETE FROM audit_chains", None, "has no head"),
    "head set back": ("UPDATE audit_chains SET sequence = 5", 6, "comes after the chain's head"),
    "head edited": ("UPDATE audit_chains SET head = sha256('x')", 6, "chain's head was made of"),
}  # fmt: skip


async def test_of_chains_that_nobody_touched_nothing_is_said(trail: Trail) -> None:
    report = await verify.whole(trail.sql)
    assert report.findings == []
    assert {one.chain: one.rows for one in report.chains if one.rows}.keys() >= {"control"}
    assert report.rows == 12 + EVENTS
    assert await verify.intact(trail.sql) == 12
    assert "control      holds" in verify.text(report)


@pytest.mark.parametrize("done", sorted(USAGE))
async def test_what_was_done_to_usage_is_named(trail: Trail, done: str) -> None:
    sql, place, words = USAGE[done]
    partition = await trail.partition()
    of_row = "SELECT usage_id FROM usage_records WHERE partition = $1 AND position = $2"
    was = await trail.sql.fetchval(of_row, partition, 2)
    await trail.sql.execute(sql.format(p=partition, n=2))
    found = await trail.found()
    named = [one for one in found if (one.chain, one.sequence) == (f"usage:{partition}", place)]
    assert any(words in one.what for one in named), found
    if "not the record" in words:
        assert [one.id for one in named] == [str(was)]
        assert len(found) == 1, "only the row at fault is named"


@pytest.mark.parametrize("done", sorted(EVENT))
async def test_what_was_done_to_events_is_named(trail: Trail, done: str) -> None:
    sql, place, words = EVENT[done]
    await trail.sql.execute(sql)
    found = await trail.found()
    named = [one for one in found if one.sequence == place and one.chain == "control"]
    assert any(words in one.what for one in named), found
    with pytest.raises(verify.Broken, match="control"):
        await verify.intact(trail.sql)


async def test_an_event_that_was_edited_is_named_with_its_id_and_no_other(trail: Trail) -> None:
    await trail.sql.execute("UPDATE audit_events SET actor = 'mallory' WHERE sequence = 3")
    event_id = await trail.sql.fetchval("SELECT event_id FROM audit_events WHERE sequence = 3")
    [found] = await trail.found()
    assert (found.chain, found.sequence, found.id) == ("control", 3, str(event_id))
    assert found.place == f"control 3 ({event_id})"


async def test_a_month_that_was_dropped_is_named_as_one_stretch(trail: Trail) -> None:
    month = await trail.sql.fetchval("SELECT tableoid::REGCLASS::TEXT FROM usage_records LIMIT 1")
    await trail.sql.execute(f"DROP TABLE {month}")
    partition = await trail.partition_of_seals()
    found = [one for one in await trail.found() if one.chain == f"usage:{partition}"]
    assert [(one.sequence, one.what) for one in found] == [
        (1, "the record is missing, and so are all up to 3"),
        (4, "the record is missing, and so are all up to 6"),
    ]


async def test_a_row_of_a_partition_that_there_is_not_is_in_no_chain(trail: Trail) -> None:
    await trail.sql.execute("UPDATE usage_records SET partition = 99 WHERE position = 1")
    assert {one.what for one in await trail.found() if one.chain == "usage:99"} == {
        "is in no chain"
    }
    await trail.sql.execute("UPDATE audit_seals SET partition = 98 - partition")
    strays = {one.chain for one in await trail.found() if "is no chain" in one.what}
    assert strays and strays <= {f"usage:{98 - number}" for number in range(4)}


async def test_of_a_chain_that_is_broken_everywhere_the_first_are_named(trail: Trail) -> None:
    for number in range(MOST + 5):
        await trail.note(number=number)
    await trail.seal()
    await trail.sql.execute("UPDATE audit_events SET actor = 'mallory'")
    found = await trail.found()
    assert len(found) == MOST + 1
    assert found[-1].what == f"and {EVENTS + 5} more like these"


async def test_seals_of_an_earlier_build_are_verified_as_that_made_them(trail: Trail) -> None:
    """A ledger of before migration 0018 may drain beside this one."""
    await reseal_as_before(trail.sql)
    assert await trail.found() == []
    partition = await trail.partition()
    await trail.sql.execute(
        "UPDATE usage_records SET quantity = 9 WHERE partition = $1 AND position = 2", partition
    )
    [found] = await trail.found()
    assert (found.chain, found.sequence) == (f"usage:{partition}", 3)
    assert "one of the records from 1 on" in found.what
