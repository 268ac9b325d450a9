"""A worker that is killed at one of its awaits, as `tests.ledger.crashes` kills."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from tests.ledger.crashes import Crash, Tripwire


class DyingApi:
    """Stripe as a worker sees it that is killed before or after a call: it never hears more."""

    def __init__(self, inner: Any, wire: Tripwire) -> None:
        self._inner, self._wire = inner, wire

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        async def call(*args: Any, **options: Any) -> Any:
            try:
                return await self._wire.around(name, lambda: found(*args, **options))
            except Crash as crash:
                raise asyncio.CancelledError from crash

        return call


async def survived(work: Awaitable[Any]) -> Any:
    """What it did; None if it was killed in it."""
    try:
        return await work
    except (Crash, asyncio.CancelledError):
        return None
