"""Hundreds of requests to every operation, alone and one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.run import run


@pytest.mark.timeout(3600)
def test_no_request_of_many_is_answered_otherwise_than_the_document_says(tmp_path: Path) -> None:
    done = run(tmp_path, "--max-examples", "500")
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout
