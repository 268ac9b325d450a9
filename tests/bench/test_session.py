"""One small run against real servers and the real programs."""

from __future__ import annotations

from pathlib import Path

from bench.options import Options
from bench.results import GATEWAY
from bench.rig import Rig
from bench.session import measure

TINY = Options(
    rounds=1,
    long_s=0.3,
    short_s=0.1,
    raw_s=0.05,
    round_trips=20,
    copy_rows=500,
    accounts=0,
    search_steps=1,
    workers=False,
    append_only_off=False,
    peers=False,
    wrk=False,
)


async def test_a_run_measures_everything_and_notices_a_row_that_is_gone(tmp_path: Path) -> None:
    async def lose_a_row(rig: Rig) -> None:
        one = await rig.sql.fetchval("SELECT usage_id FROM usage_records LIMIT 1")
        await rig.sql.execute("DELETE FROM usage_records WHERE usage_id = $1", one)

    results = await measure(tmp_path, TINY, [], lambda text: None, lose_a_row)

    assert {check.text for check in results.checks if not check.holds} == {
        "acknowledged records are rows, and nothing else is",
        "every stream entry is one row",
        "pools total what the rows add up to",
    }
    assert not results.correct
    assert results.values("saturation, fsync always", GATEWAY)[0] > 0
    assert {"batch of 100", "replays (4 of 5)", "quota check"} <= set(results.figures["mixes"])
    assert len(results.figures["redis alone"]) == 4
    assert results.search[0].failed == 0
