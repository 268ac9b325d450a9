"""Usage types and their decimal places, as the gateway remembers them."""

from __future__ import annotations

import asyncio
from functools import partial

from gateway.known import Unknown
from gateway.problems import Kind, Problem, unavailable
from ledger import clock, db, store
from ledger.flights import SingleFlight

# A name that is not known is looked up again at most this often: it may just have been made,
# but a flood of misspelt names must not reach Postgres.
REFRESH_S = 5
PATIENCE_S = 2  # with Postgres, before the request is answered 503


class UsageTypes:
    """Known types never change and are never removed, so they are kept for ever."""

    def __init__(self, pool: db.Pool) -> None:
        self._pool = pool
        self._places: dict[str, int] = {}
        self._read_at = 0.0
        self._flights = SingleFlight()

    def places(self, usage_type: str) -> int:
        """Decimal places of a usage type. Raises 400 for one that does not exist, `Unknown` when
        it may only just have been made."""
        known = self._places.get(usage_type)
        if known is not None:
            return known
        if clock.monotonic() - self._read_at >= REFRESH_S or not self._places:
            raise Unknown(partial(self._flights.run, None, self._read))
        raise Problem(
            Kind.INVALID_USAGE, f"unknown usage_type; known are {', '.join(sorted(self._places))}"
        )

    def forget(self) -> None:
        """Looks an unknown name up at once: one has just been made, here."""
        self._read_at = -REFRESH_S

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                self._places = await store.usage_types(self._pool)
        except db.UNAVAILABLE:
            if not self._places:
                raise unavailable("usage types cannot be read from Postgres") from None
        self._read_at = clock.monotonic()
