"""A run of chaos takes both cores for seconds: only by ``./run test chaos``."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked = any("chaos" in str(arg) for arg in config.invocation_params.args)
    return True if collection_path.name == "test_episode.py" and not asked else None
