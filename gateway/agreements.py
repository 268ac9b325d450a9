"""Which organisations have a business associate agreement, as the gateway remembers them."""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import UUID

from gateway.known import Unknown
from gateway.problems import unavailable
from ledger import clock, db, store
from ledger.flights import SingleFlight

# How long an agreement that has ended may still be believed. No longer while Postgres does not
# answer either: then it is not known.
REMEMBERED_S = 60
REMEMBERED_ORGANIZATIONS = 100_000
PATIENCE_S = 2  # with Postgres, before the request is answered 503


class Agreements:
    """Asked only for what takes an agreement, so that other usage never waits for it."""

    def __init__(self, pool: db.Pool) -> None:
        self._pool = pool
        self._signed: dict[UUID, tuple[float, bool]] = {}
        self._flights = SingleFlight()

    def signed(self, organization_id: UUID) -> bool:
        """Whether it has one, as it was at most a minute ago. Raises `Unknown`."""
        known = self._signed.get(organization_id)
        if known is None or known[0] <= clock.monotonic():
            read = partial(self._read, organization_id)
            raise Unknown(partial(self._flights.run, organization_id, read))
        return known[1]

    def forget(self, organization_id: UUID) -> None:
        """Reads it anew: it has just been described, here."""
        self._signed.pop(organization_id, None)

    async def _read(self, organization_id: UUID) -> None:
        asked_at = clock.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await store.organizations.find(self._pool, organization_id)
        except db.UNAVAILABLE:
            raise unavailable(
                "whether the organization has an agreement is not known now"
            ) from None
        if len(self._signed) >= REMEMBERED_ORGANIZATIONS:
            self._signed.clear()
        signed = found is not None and found.organization.baa == "signed"
        self._signed[organization_id] = (asked_at + REMEMBERED_S, signed)
