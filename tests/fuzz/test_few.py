"""A few requests to every operation."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.run import run


def test_no_request_is_answered_otherwise_than_the_document_says(tmp_path: Path) -> None:
    done = run(tmp_path, "--phases", "examples,fuzzing", "--max-examples", "3")
    assert done.returncode == 0, done.stdout
