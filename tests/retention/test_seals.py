"""What a purge leaves is still sealed, by seals of either version."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.export import month
from ledger import retention, store
from ledger.audit import verify
from ledger.audit.delivery import Delivery
from ledger.audit.sealing import Sealer
from tests.audit.conftest import reseal_as_before
from tests.audit.service import AuditService
from tests.retention.conftest import FEBRUARY, JANUARY, KEY, LONG_AFTER, Past

# Of the first batch nothing is left, of the second the records at 4 and 6, the third is whole.
COLUMNS = (
    "user_id, organization_id, usage_type, quantity, recorded_at, occurred_at, billing_period,"
    " quota_period, pool_period, subscription_id, plan_tier, plan_version, used_after,"
    " pool_used_after, quota_remaining, quota_exceeded, enforced, metadata, idempotency_key,"
    " recorded_by, reversal_of, partition, stream_id"
)
COPY = (
    f"INSERT INTO usage_records ({COLUMNS}, usage_id, position)"  # noqa: S608
    f" SELECT {COLUMNS}, gen_random_uuid(), $ FROM usage_records WHERE position = 7"
)
BY_HAND = {
    "DELETE FROM usage_records WHERE position = 4": (4, "the record is missing"),
    "DELETE FROM usage_records WHERE position IN (6, 7)": (6, "the record is missing"),
    "DELETE FROM usage_records WHERE position = 7": (7, "the record is missing"),
    "DELETE FROM usage_records WHERE position < 7": (4, "the record is missing"),
    "UPDATE usage_records SET quantity = 9 WHERE position = 6": (6, "is not the record that was"),
    "UPDATE usage_records SET position = 5 WHERE position = 4": (5, "is a record that was purged"),
    COPY.replace("$", "2"): (2, "is a record that was purged"),
    COPY.replace("$", "3"): (3, "is a record that was purged"),
    "UPDATE audit_seals SET kept = 3, records = 4 WHERE kept = 2": (6, "its seal was changed"),
    "UPDATE audit_seals SET kept_head = sha256('x') WHERE kept = 2": (6, "its seal was changed"),
}


async def purge(past: Past, folder: Path) -> None:
    await month.purge(past.sql, JANUARY, folder, KEY, actor="olga", now=LONG_AFTER)


async def found(past: Past) -> list[tuple[int | None, str]]:
    return [(one.sequence, one.what) for one in (await verify.whole(past.sql)).findings]


async def done_by_hand(past: Past, statement: str) -> list[tuple[int | None, str]]:
    """What is found after it; it is taken back."""
    undone = past.sql.transaction(isolation="repeatable_read")
    await undone.start()
    try:
        await past.sql.execute(statement)
        return await found(past)
    finally:
        await undone.rollback()


@pytest.mark.parametrize("version", [1, 2])
async def test_after_a_purge_nothing_is_found_but_what_was_done_by_hand(
    past: Past, tmp_path: Path, version: int
) -> None:
    if version == 1:
        await reseal_as_before(past.sql)
    await purge(past, tmp_path)
    assert await Sealer(past.sql).run_once() > 0
    assert await found(past) == []
    assert await past.found() == []
    for statement, (place, words) in BY_HAND.items():
        told = await done_by_hand(past, statement)
        assert [what for at, what in told if at == place and words in what], (statement, told)
    told = await done_by_hand(past, "DELETE FROM usage_records WHERE position = 4")
    assert told == [(4, "the record is missing")], "and of the purged ones beside it nothing"
    # The rest goes as well.
    await month.purge(past.sql, FEBRUARY, tmp_path, KEY, actor="olga", now=LONG_AFTER)
    assert await found(past) == []


async def test_a_purge_of_an_earlier_build_made_no_marks(past: Past, tmp_path: Path) -> None:
    await reseal_as_before(past.sql)
    await purge(past, tmp_path)
    await past.sql.execute("UPDATE audit_seals SET marks = ''")
    assert await found(past) == []
    told = await done_by_hand(past, "DELETE FROM usage_records WHERE position = 4")
    assert told == [(6, "of the records that a purge left are missing: 1")]
    [(place, what)] = await done_by_hand(
        past, "UPDATE usage_records SET quantity = 9 WHERE position = 4"
    )
    assert place == 6 and "one of the records from 3 on" in what


async def test_a_purge_does_not_seal_what_was_edited_since_the_archive_was_written(
    past: Past, tmp_path: Path
) -> None:
    path = tmp_path / "usage-2010-01"
    archived = await month.archive(past.sql, JANUARY, path, KEY, LONG_AFTER)
    await past.sql.execute("UPDATE usage_records SET quantity = 9 WHERE position = 4")
    await retention.purge(past.sql, JANUARY, archived, actor="olga", now=LONG_AFTER)
    assert await found(past) == [(4, "is not the record that was sealed")]


async def test_the_audit_service_is_sent_what_a_purge_left(past: Past, tmp_path: Path) -> None:
    await purge(past, tmp_path)
    service = AuditService()
    await service.start()
    try:
        for places in ([4, 6, 7], []):
            service.events.clear()
            await past.sql.execute("TRUNCATE audit_deliveries")
            await store.audit_deliveries.begin(past.sql)
            while await Delivery(past.sql, service.url).run_once():
                pass
            usage = [one for one in service.events if one["chain"] == "usage:0"]
            assert [one["sequence"] for one in usage] == places
            assert (await store.audit_deliveries.state(past.sql)).waiting == 0
            if places:
                await month.purge(past.sql, FEBRUARY, tmp_path, KEY, actor="olga", now=LONG_AFTER)
    finally:
        await service.close()
