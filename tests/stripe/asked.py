"""Whether all is to be run, as by ``./run test stripe``, or a little of it."""

from __future__ import annotations

from pathlib import Path

import pytest


def asked(config: pytest.Config) -> bool:
    args = config.invocation_params.args
    return any(Path(str(one).partition("::")[0]).name == "stripe" for one in args)
