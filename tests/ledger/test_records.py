"""Rows as Postgres reads them back: quantities, times and absences at their edges."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ledger import store
from ledger.domain.ids import dev_uuid
from ledger.domain.usage import at_ms
from ledger.drain import Drain
from tests.ledger.stream import Partition

LARGEST = 2**53 - 1
UNITS = (1, 9, 10, 1_000_000, 1_000_001, LARGEST, -1, -LARGEST)
MEMBER = b"o" + dev_uuid("clinic").bytes + dev_uuid("ada").bytes
NOVEMBER, LATEST = 1_793_491_200_000, 7_258_118_399_999  # ms; what a calendar may say at most


async def row_of(
    partition: Partition, drain: Drain, quota: str, **changed: bytes
) -> dict[str, object]:
    """The row of an entry whose counts are these words (see `tests.entries`)."""
    await partition.add(quota=quota.encode(), **changed)
    assert await drain.run_once([0]) == 1
    [row] = await partition.sql.fetch("SELECT * FROM usage_records ORDER BY position DESC LIMIT 1")
    return dict(row)


@pytest.mark.parametrize("places", [0, 2, 6])
async def test_every_quantity_is_exact(partition: Partition, drain: Drain, places: int) -> None:
    await store.insert_usage_type(partition.sql, "measured", places, "")
    names = ("quantity", "used_after", "pool_used_after", "quota_remaining")
    for units in UNITS:
        counts = f"{units} {NOVEMBER} {NOVEMBER} {NOVEMBER} {-units} {units} {abs(units)} 0 1"
        row = await row_of(partition, drain, counts, type=b"measured", who=MEMBER)
        expected = [Decimal(one).scaleb(-places) for one in (units, -units, units, abs(units))]
        assert [row[name] for name in names] == expected
    totals = await partition.sql.fetch("SELECT quantity, records FROM usage_totals")
    assert [tuple(one) for one in totals] == [(Decimal(sum(UNITS)).scaleb(-places), len(UNITS))] * 2
    await partition.check()


async def test_nothing_and_zero_are_told_apart(partition: Partition, drain: Drain) -> None:
    names = ("organization_id", "pool_period", "pool_used_after", "quota_remaining")
    without = await row_of(partition, drain, f"1 {NOVEMBER} {NOVEMBER} - 0 - - 0 1")
    assert [without[name] for name in names] == [None] * 4
    assert (without["used_after"], without["quota_exceeded"], without["enforced"]) == (
        0,
        False,
        True,
    )
    counts = f"1 {NOVEMBER} {NOVEMBER} {NOVEMBER} 0 0 0 1 0"
    zero = await row_of(partition, drain, counts, who=MEMBER)
    assert [zero[name] for name in names] == [dev_uuid("clinic"), at_ms(NOVEMBER), 0, 0]
    assert (zero["used_after"], zero["quota_exceeded"], zero["enforced"]) == (0, True, False)


async def test_every_time_is_exact_to_the_millisecond(partition: Partition, drain: Drain) -> None:
    for ms in (0, 1, NOVEMBER - 1, NOVEMBER + 1, LATEST):
        row = await row_of(partition, drain, f"1 {ms} {ms} - 1 - - 0 1")
        claimed = "SELECT recorded_at FROM usage_keys WHERE usage_id = $1"
        times = [row[name] for name in ("recorded_at", "occurred_at", "quota_period")]
        times.append(await partition.sql.fetchval(claimed, row["usage_id"]))
        assert times == [at_ms(ms)] * 4
