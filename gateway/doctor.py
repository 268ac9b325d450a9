"""``./run doctor``: what is wrong with a set-up, in plain words."""

from __future__ import annotations

from collections.abc import Mapping


async def doctor(environ: Mapping[str, str]) -> int:
    raise NotImplementedError
