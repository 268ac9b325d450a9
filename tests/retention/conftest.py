"""A ledger with usage of years ago, and what reconcile says of its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

import pytest

from ledger import db, loops
from ledger.domain.ids import dev_uuid
from ledger.domain.organization import Organization, RetentionClass
from ledger.domain.period import calendar_month
from ledger.domain.usage import ms_of
from ledger.drain import Drain
from ledger.organizations import put
from ledger.reconcile import rows
from ledger.reconcile.findings import merged
from ledger.reconcile.invoices import check_invoices
from lua.connection import RedisConnection
from lua.scripts import Scripts
from tests.backup.conftest import Operator
from tests.ledger.stream import Partition

JANUARY, FEBRUARY = date(2010, 1, 1), date(2010, 2, 1)
LONG_AFTER = datetime(2026, 1, 1, tzinfo=UTC)
KEY = bytes(range(32))


class Past:
    """Records are added as the script would have, then; the ledger drains them now."""

    def __init__(self, partition: Partition, drain: Drain) -> None:
        self.sql = partition.sql
        self._partition, self._drain = partition, drain
        self._used: Counter[tuple[bytes, int]] = Counter()

    async def record(
        self, at: datetime, units: int = 1, user: str = "ada", organization: str | None = None
    ) -> None:
        when, starts = ms_of(at), ms_of(calendar_month(at).start)
        who = b"u" + dev_uuid(user).bytes
        if organization is not None:
            who = b"o" + dev_uuid(organization).bytes + dev_uuid(user).bytes
        self._used[who, starts] += units
        used = self._used[who, starts]
        pool = pool_used = "-"
        if organization is not None:
            self._used[who[:17], starts] += units
            pool, pool_used = str(starts), str(self._used[who[:17], starts])
        quota = f"{units} {when} {starts} {pool} {used} {pool_used} - 0 1"
        await self._partition.add(who=who, quota=quota.encode())

    async def repeat(self, usage_id: UUID) -> None:
        """The same unit once more, counted by a Redis that has forgotten it."""
        await self._partition.add(id=usage_id.bytes)

    async def drained(self) -> None:
        while await self._drain.run_once([0]):
            pass

    async def some(self) -> None:
        """Two months of a user and an organisation; one batch lies across their border."""
        for organization in (None, "clinic"):
            await self.record(datetime(2010, 1, 5, tzinfo=UTC), 3, organization=organization)
        await self.drained()
        for organization in (None, "clinic"):
            last = datetime(2010, 1, 31, 23, 59, 59, 999000, tzinfo=UTC)
            await self.record(last, 4, organization=organization)
            await self.record(datetime(2010, 2, 1, tzinfo=UTC), 5, organization=organization)
        await self.drained()
        await self.record(datetime(2010, 2, 9, tzinfo=UTC), 6, organization="clinic")
        await self.drained()

    async def describe(
        self, name: str, retention_class: RetentionClass = "standard", hold: str | None = None
    ) -> None:
        pool = _One(self.sql)
        said = Organization(name=name, retention_class=retention_class, legal_hold_reason=hold)
        await put(
            pool, dev_uuid(name), said,  # type: ignore[arg-type]
            actor="test", now=LONG_AFTER, if_version=None, may_unprotect=True,
        )  # fmt: skip

    async def found(self) -> list[str]:
        """What reconcile finds in the rows, as of now."""
        report = merged(
            [
                await rows.check(self.sql, 0, 0, 2**60),
                await rows.check_whole(self.sql, 0),
                await rows.check_totals(self.sql),
                await rows.check_billable(self.sql),
                await check_invoices(self.sql),
                await rows.check_chains(self.sql),
            ]
        )
        return [f"{one.invariant}: {one.what}" for one in report.findings]

    async def months(self) -> list[str]:
        """Months with records, and how many."""
        found = await self.sql.fetch(
            "SELECT to_char(recorded_at, 'YYYY-MM') || ' ' || COUNT(*) FROM usage_records"
            " GROUP BY to_char(recorded_at, 'YYYY-MM') ORDER BY 1"
        )
        return [row[0] for row in found]


class _One:
    """One connection in place of a pool."""

    def __init__(self, connection: db.Connection) -> None:
        self._connection = connection

    def acquire(self) -> _One:
        return self

    async def __aenter__(self) -> db.Connection:
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        pass


@pytest.fixture
async def past(connection: db.Connection, redis: RedisConnection) -> AsyncIterator[Past]:
    await loops.check_partitions(connection, 1)
    drain = Drain(connection, Scripts(redis), 600)
    partition = Partition(redis, connection)
    await drain.run_once([0])
    await partition.synchronise()
    made = Past(partition, drain)
    await made.some()
    yield made


@pytest.fixture
def operator(database_url: str, tmp_path: Path) -> Operator:
    return Operator(database_url, tmp_path)
