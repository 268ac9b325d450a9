"""What is missed is said; what was not measured is not called met."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench import command, report
from bench.results import GATEWAY, Check, Point, Results, Target, ratios, targets
from bench.session import search
from ledger import logs

ALWAYS = "saturation, fsync always"


def results(**rates: list[float]) -> Results:
    found = Results(checks=[Check("all is kept", True, "10 of 10")])
    for name, values in rates.items():
        for value in values:
            found.add(ALWAYS, name, "requests/s", value)
    return found


def test_ratios_are_taken_within_a_round() -> None:
    # The machine was half as fast in the second round, for both.
    assert ratios([100, 50, 110], [50, 25, 50]) == [2, 2, 2.2]
    assert ratios([100, 50, 90], [30]) == [3]
    assert ratios([], [1.0]) == ratios([1.0], []) == ratios([1.0], [0.0]) == []


@pytest.mark.parametrize(
    ("values", "at_least", "met"),
    [([0.9, 1.0, 5], True, True), ([0.9, 0.99, 5], True, False), ([2, 3, 4], False, False)],
)
def test_a_target_is_met_by_the_median(values: list[float], at_least: bool, met: bool) -> None:
    assert Target("P", "", 1.0, at_least, values).met is met


def test_a_peer_that_is_not_installed_is_named_with_how_to_install_it() -> None:
    found = results(gateway=[100], naive=[50])
    found.missing["nginx"] = "apt-get install the-module"
    text = report.markdown(found)
    assert "nginx is not installed: apt-get install the-module | not measured" in text
    by_text = {target.text: target.met for target in targets(found)}
    assert by_text["single record against nginx"] is None
    assert by_text["single record against naive"] is False


def test_the_table_shows_median_range_and_ratio() -> None:
    text = report.markdown(results(gateway=[900, 1000, 1300], nginx=[1000, 1000, 1000]))
    assert "| 1,000 (900 to 1,300) |" in text
    assert "| 1 x (0.9 to 1.3) |" in text


def test_the_json_holds_every_value_and_verdict() -> None:
    document = msgspec.json.decode(report.as_json(results(gateway=[1, 3], nginx=[2, 2])))
    assert document["figures"][ALWAYS][GATEWAY]["values"] == [1, 3]
    assert document["targets"][0]["met"] is True
    assert document["targets"][0]["values"] == [0.5, 1.5]


async def test_the_search_closes_in_on_the_highest_rate_that_keeps_the_promise() -> None:
    async def point(rate: int) -> Point:
        return Point(rate, rate, 1, 1, 5 if rate <= 700 else 500, 500, 0)

    points = await search(point, 1_000, 8)
    kept = max(one.rate for one in points if one.holds)
    assert 690 <= kept <= 700
    assert points == sorted(points, key=lambda one: one.rate)


@pytest.mark.parametrize(
    ("holds", "words", "code"),
    [(True, [], 0), (False, [], 1), (True, ["--strict"], 1)],
)
def test_the_exit_code_is_about_correctness_unless_strict(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    holds: bool,
    words: list[str],
    code: int,
) -> None:
    found = results(gateway=[100], naive=[90])  # a missed target
    found.checks = [Check("all is kept", holds, "")]

    async def measure(*_: object) -> Results:
        return found

    monkeypatch.setattr(command, "measure", measure)
    monkeypatch.setattr(logs, "configure", lambda level: None)  # of a process of its own
    assert command.main(["--quick", "--no-peers", "--out", str(tmp_path), *words]) == code
    assert "NOT MET" in capsys.readouterr().out
    assert (tmp_path / "table.md").exists() and (tmp_path / "results.json").exists()
    assert not list(tmp_path.glob("run-*"))
