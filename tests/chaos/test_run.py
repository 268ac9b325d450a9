"""The runner itself: its command line, and what it says."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest

from chaos import command
from chaos.report import Line, Report
from tests.chaos.runner import run


def test_an_unknown_fault_is_named_and_the_known_ones_are_listed(tmp_path: Path) -> None:
    made = run(tmp_path, "--faults", "kill,earthquake")
    assert made.returncode == 2
    assert made.stderr.splitlines()[-1].startswith(
        "./run chaos: error: --faults: no such fault: earthquake; there are kill, stop"
    )


LINE = Line(
    episode=4,
    faults=["kill:redis"],
    events=10,
    acked=9,
    unknown=1,
    outcomes={},
    lost=0,
    back_s=0.5,
    drained_s=0.1,
    seconds=3.0,
    taken=[],
    drained=[],
    violations=[],
)


async def test_a_run_ends_when_as_much_has_happened_as_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def play(*_: object) -> Line:
        return LINE

    async def furnish(*_: object) -> None:
        return None

    monkeypatch.setattr(command, "Stand", lambda folder: nullcontext())
    monkeypatch.setattr(command, "_furnish", furnish)
    monkeypatch.setattr(command, "play", play)
    (tmp_path / "chaos").mkdir()
    for words, episodes_played in [
        (["--faults-at-least", "3"], 3),
        (["--events-at-least", "61"], 7),
        (["--faults-at-least", "3", "--events-at-least", "61"], 7),
        (["--faults-at-least", "3", "--episodes", "2"], 2),
        ([], 10),
    ]:
        report = await command.run(command._parse(words, tmp_path))
        assert len(report.lines) == episodes_played
        assert report.enough == ("--episodes" not in words)


@pytest.mark.parametrize(
    ("faults", "events", "enough"), [(1, 10, True), (2, 0, False), (0, 11, False)]
)
def test_a_run_that_ends_before_enough_has_happened_is_not_sound(
    faults: int, events: int, enough: bool
) -> None:
    report = Report(
        seed=7, lines=[LINE], seconds=3.0, faults_at_least=faults, events_at_least=events
    )
    assert report.sound == enough
    assert ("TOO LITTLE" in str(report)) != enough


@pytest.mark.parametrize("violations", [[], ["I2: not one row for one id: 1: x"]])
def test_a_broken_episode_says_how_to_replay_it(violations: list[str]) -> None:
    line = msgspec.structs.replace(LINE, violations=violations)
    text = str(Report(seed=7, lines=[line], seconds=3.0, kept="there" if violations else None))
    assert ("to replay: ./run chaos --seed 7 --first 4 --episodes 1" in text) == bool(violations)
    assert ("logs and data: there" in text) == bool(violations)
    assert text.endswith("BROKEN" if violations else "every invariant held")
