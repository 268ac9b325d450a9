"""A few subscriptions always; two thousand when asked for, by ``./run test billing``."""

from __future__ import annotations

from pathlib import Path

import pytest

PER_TEST = 50
ALWAYS, ASKED = 1, 44


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seeds" in metafunc.fixturenames:
        asked = any(
            Path(str(arg).partition("::")[0]).name == "billing"
            for arg in metafunc.config.invocation_params.args
        )
        firsts = [n * PER_TEST for n in range(ASKED if asked else ALWAYS)]
        metafunc.parametrize("seeds", [range(one, one + PER_TEST) for one in firsts], ids=str)
