"""A run of the benchmark takes both cores for seconds: only by ``./run test bench``."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked = any("bench" in str(arg) for arg in config.invocation_params.args)
    return True if collection_path.name == "test_session.py" and not asked else None
