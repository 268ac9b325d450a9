"""Hundreds of requests to every operation: minutes, so only by ``./run test fuzz``."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked = any("fuzz" in str(arg) for arg in config.invocation_params.args)
    return True if collection_path.name == "test_many.py" and not asked else None
