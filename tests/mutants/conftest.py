"""Every mutant against its tests takes minutes: only when asked for, by ``./run test mutants``."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked = any("mutants" in str(arg) for arg in config.invocation_params.args)
    return True if collection_path.name == "test_killed.py" and not asked else None
