"""One asks, all who want the same meanwhile wait for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

Work = Callable[[], Coroutine[Any, Any, None]]


class SingleFlight:
    """Work by key: while some is under way, whoever wants the same joins it."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, asyncio.Task[None]] = {}

    async def run(self, key: Hashable, work: Work) -> None:
        """Returns when the work is done; raises what it raises."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.ensure_future(work())
            flight.add_done_callback(lambda done: self._landed(key, done))
        await asyncio.shield(flight)  # one caller going away must not fail the others

    def _landed(self, key: Hashable, flight: asyncio.Task[None]) -> None:
        self._flights.pop(key, None)
        if not flight.cancelled():
            flight.exception()  # counts as seen, even when every caller has gone away meanwhile
