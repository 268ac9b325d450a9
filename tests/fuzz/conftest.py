"""A few requests to every operation take seconds, hundreds take minutes: only by
``./run test tests/fuzz/test_few.py`` and ``./run test fuzz``."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked = any("fuzz" in str(arg) for arg in config.invocation_params.args)
    return None if asked or not collection_path.name.startswith("test_") else True
