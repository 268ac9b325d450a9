from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ledger import db
from ledger.reconcile import Reconciler
from ledger.reconcile.findings import Report
from tests.conftest import Service


class Compared:
    """A service with usage of a user and of two members, and what reconcile says of it."""

    def __init__(self, service: Service, connection: db.Connection) -> None:
        self.service = service
        self.sql = service.sql
        self._connection = connection  # the tests damage over the other one meanwhile
        self._numbers = 0

    async def record(self, user: str = "ada", quantity: int = 1, **more: object) -> None:
        self._numbers += 1
        body = {"user_id": user, "usage_type": "api_calls", "quantity": quantity, **more}
        body.setdefault("idempotency_key", f"key {self._numbers}")
        status, said, _ = await self.service.post("/usage", body)
        assert status == 201, said

    async def some(self) -> None:
        for user in ("ada", "bob"):
            for quantity in (1, 2, 3):
                await self.record(user, quantity)
                await self.record(user, quantity, organization_id="acme")

    def reconciler(self, *, repair: bool = False) -> Reconciler:
        service = self.service
        return Reconciler(self._connection, service.servers, service.scripts, repair=repair)

    async def whole(self, *, repair: bool = False) -> Report:
        return await self.reconciler(repair=repair).whole(self.service.settings.partitions)

    async def found(self) -> list[tuple[str, str]]:
        return [(one.invariant, one.what) for one in (await self.whole()).findings]

    async def forget_positions(self) -> None:
        """As if every partition had been looked at long ago."""
        await self.sql.execute("UPDATE reconcile_state SET claimed_at = NOW() - INTERVAL '1 hour'")


@pytest.fixture
async def compared(service: Service, database_url: str) -> AsyncIterator[Compared]:
    connection = await db.connect(database_url)
    yield Compared(service, connection)
    await connection.close()
