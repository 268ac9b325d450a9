"""What Postgres itself refuses: found, parked, and the rest goes on."""

from __future__ import annotations

import pytest

from ledger.booking import BAD_IN_A_ROW, DrainStopped
from ledger.drain import Drain
from tests.ledger.stream import Partition


async def refuse(partition: Partition, units: int) -> None:
    """Has Postgres refuse records of this many units, as a rule we know nothing about would."""
    await partition.sql.execute(
        f"ALTER TABLE usage_records ADD CONSTRAINT unforeseen CHECK (quantity <> {units})"
    )


@pytest.mark.parametrize("place", [0, 1, 4, 6])
async def test_a_record_that_postgres_refuses_is_parked_whole_and_the_others_are_written(
    partition: Partition, drain: Drain, place: int
) -> None:
    await refuse(partition, 13)
    ids = [
        await partition.add(quota=b"%d 1700000000000 1698796800000 - 1 - - 0 1" % units)
        for units in [13 if at == place else 1 for at in range(7)]
    ]
    assert await drain.run_once([partition.number]) == 7
    [parked] = await partition.sql.fetch("SELECT stream_id, units, entry, reason FROM dead_letters")
    assert (parked["stream_id"], parked["units"]) == (ids[place], 13)
    assert '"event"' in parked["entry"]
    assert "CheckViolation" in parked["reason"]
    written = await partition.sql.fetch("SELECT stream_id FROM usage_records ORDER BY position")
    assert [row["stream_id"] for row in written] == ids[:place] + ids[place + 1 :]
    assert await partition.sql.fetchval("SELECT SUM(quantity) FROM usage_totals") == 6
    assert await partition.sql.fetchval("SELECT COUNT(*) FROM usage_keys") == 6
    assert await drain.run_once([partition.number]) == 0


async def test_more_refusals_than_a_few_stop_the_drain_and_skip_nothing(
    partition: Partition, drain: Drain
) -> None:
    await refuse(partition, 13)
    for _ in range(BAD_IN_A_ROW + 1):
        await partition.add(quota=b"13 1700000000000 1698796800000 - 1 - - 0 1")
    with pytest.raises(DrainStopped):
        await drain.partition(partition.number)
    assert await partition.sql.fetchval("SELECT COUNT(*) FROM dead_letters") == 0
    assert (
        await partition.sql.fetchval(
            "SELECT last_id FROM stream_cursor WHERE partition = $1", partition.number
        )
        == "0-0"
    )
