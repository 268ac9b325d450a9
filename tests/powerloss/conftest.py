"""A cut at every byte takes minutes: only when asked for, by ``./run test powerloss``."""

from __future__ import annotations

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "sample" in metafunc.fixturenames:
        asked = any("powerloss" in str(arg) for arg in metafunc.config.invocation_params.args)
        metafunc.parametrize("sample", [None if asked else 40], ids=["every" if asked else "some"])
