"""A short run of a fixed seed."""

from __future__ import annotations

from pathlib import Path

import msgspec

from chaos.report import Report
from chaos.schedule import episodes
from tests.chaos.runner import run


def test_a_short_run_does_what_its_seed_says_and_keeps_every_invariant(tmp_path: Path) -> None:
    made = run(tmp_path, "--seed", "29", "--episodes", "1", "--size", "5", "--json")
    assert made.returncode == 0, made.stdout + made.stderr
    report = msgspec.json.decode(made.stdout, type=Report)
    [line] = report.lines
    assert line.faults == [str(one) for one in next(episodes(29, size=5)).faults]
    assert line.events > 1_000
    assert line.outcomes["429"], "limits were reached"
    assert line.outcomes["replayed"], "keys were sent again"
    assert line.outcomes["422"], "keys were used for other bodies"
    assert line.back_s >= 0
    assert not list((tmp_path / "chaos").iterdir()), "nothing is left where nothing is broken"
