"""A ledger with both kinds of chains: usage of two partitions, and events of all sorts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from ledger import db, store
from ledger.audit import verify
from ledger.audit.findings import Finding
from ledger.audit.sealing import Sealer
from ledger.domain.seal import FIRST_HEAD, seal
from tests.conftest import Service
from tests.gateway.conftest import shared

__all__ = ["shared"]

AT = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
EVENTS = 6


class Trail:
    """The chains of a service, and what verify says of them."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.sql = service.sql

    async def record(self, user: str = "ada", **more: object) -> None:
        body = {"user_id": user, "usage_type": "conversation_minutes", "quantity": 1.25, **more}
        status, said, _ = await self.service.post("/usage", body)
        assert status == 201, said

    async def note(self, kind: str = "plan_changed", **details: object) -> None:
        await store.insert_audit_event(self.sql, kind, "olga", dict(details), AT)

    async def seal(self) -> int:
        sealer, sealed = Sealer(self.sql), 0
        while some := await sealer.run_once():
            sealed += some
        return sealed

    async def furnish(self) -> None:
        """Two batches of each of two partitions, with all kinds of columns; and events."""
        metadata = {"feature": "notes", "department": "sales"}
        for batch in range(2):
            for number in range(3):
                await self.record("ada", idempotency_key=f"{batch} {number}", metadata=metadata)
                await self.record("bob", organization_id="acme")
            await self.service.drained()
        for number in range(EVENTS):
            await self.note(number=number, name="Zoë", rate="1.50")
        await self.seal()

    async def found(self) -> list[Finding]:
        return (await verify.whole(self.sql)).findings

    async def partition(self) -> int:
        """One with records."""
        busiest = "SELECT partition FROM usage_records GROUP BY 1 ORDER BY 1 LIMIT 1"
        return int(await self.sql.fetchval(busiest))

    async def partition_of_seals(self) -> int:
        """The same, when its records are gone."""
        first = "SELECT MIN(partition) FROM audit_seals"
        return int(await self.sql.fetchval(first))


async def reseal_as_before(sql: db.Connection) -> None:
    """Has every seal as a ledger of before migration 0018 makes it."""
    decimals = await store.usage_types(sql)
    heads: dict[int, bytes] = {}
    for row in await sql.fetch("SELECT * FROM audit_seals ORDER BY last_position"):
        partition, first = row["partition"], row["first_position"]
        async with sql.transaction(isolation="repeatable_read"):
            found = store.seals.sealed_records(sql, partition, first - 1, decimals)
            records = [one async for at, one in found if at <= row["last_position"]]
        previous = heads.get(partition, FIRST_HEAD)
        made = seal(previous, records, partition=partition, first=first, version=1)
        heads[partition] = made.head
        await sql.execute(
            "UPDATE audit_seals SET version = 1, marks = '', previous = $3, head = $4"
            " WHERE partition = $1 AND last_position = $2",
            partition,
            row["last_position"],
            previous,
            made.head,
        )
        await sql.execute(
            "UPDATE stream_cursor SET audit_head = $2 WHERE partition = $1", partition, made.head
        )


@pytest.fixture(scope="module")
async def furnished(shared: Service) -> Trail:
    made = Trail(shared)
    await made.furnish()
    return made


@pytest.fixture
async def trail(furnished: Trail) -> AsyncIterator[Trail]:
    """What a test does to it by `sql` is undone after it: to make one takes a second."""
    undone = furnished.sql.transaction(isolation="repeatable_read")
    await undone.start()
    yield furnished
    await undone.rollback()
