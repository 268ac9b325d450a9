"""A service in which months pass when they are told to."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ledger import clock, store
from ledger.cycle import Cycle
from ledger.domain.ids import dev_uuid
from ledger.domain.plan import Price
from ledger.reconcile.invoices import check_invoices
from ledger.recovery import recover
from ledger.subscriptions import Address, Outcome, Subscriptions
from ledger.supersede import Superseder
from ledger.wishes import Wish
from tests.conftest import Service
from tests.flow.invariants import check
from tests.ledger.plans import add_plan, allows, pool

TYPE = "api_calls"
GRACE = timedelta(hours=1)


class Months:
    """The billing of a service whose time is `now`; finance acts on it as the API would."""

    def __init__(self, service: Service, park_above: int) -> None:
        self.service = service
        self.sql = service.sql
        self.now = clock.now()
        superseder = Superseder(service.scripts, "basic", service.settings.partitions)
        # One connection for all: what a change sees is what a test sees.
        self.subscriptions = Subscriptions(Pool(service.sql), superseder, GRACE)  # type: ignore[arg-type]
        self.cycle = Cycle(service.sql, superseder, grace=GRACE, park_above=Decimal(park_above))

    async def plan(self, tier: str, fee: str, *prices: dict[str, Any], **said: Any) -> int:
        version = await add_plan(self.sql, tier, allows(TYPE, None), pool(TYPE, None), **said)
        await self.sql.execute(
            "UPDATE billing_plans SET base_fee = $2, prices = $3 WHERE plan_tier = $1"
            " AND version = $4",
            tier,
            Decimal(fee),
            msgspec.json.encode([msgspec.convert(one, Price) for one in prices]).decode(),
            version,
        )
        return version

    async def create(self, user: str, tier: str, **said: Any) -> Outcome:
        organization = said.pop("organization", None)
        address = self.address(user, organization)
        made = await self.subscriptions.create(address, tier, actor="test", now=self.now, **said)
        await self.settle()
        return made

    async def act(self, user: str, wish: Wish, organization: str | None = None) -> Outcome:
        made = await self.subscriptions.act(
            self.address(user, organization), wish, actor="test", now=self.now
        )
        await self.settle()
        return made

    def address(self, user: str, organization: str | None) -> Address:
        if organization is None:
            return Address("user", dev_uuid(user))
        return Address("organization", dev_uuid(user), dev_uuid(organization))

    async def use(self, user: str, quantity: int, at: datetime | None = None, **said: Any) -> UUID:
        body = {"user_id": user, "usage_type": TYPE, "quantity": quantity, **said}
        if at is not None:
            body["occurred_at"] = at.isoformat()
        status, answer, _ = await self.service.post("/usage", body)
        assert status == 201, answer
        return UUID(answer["usage_id"])

    async def advance(self, to: datetime) -> None:
        """Goes there and does all that is due."""
        await self.move(to)
        await self.settle()

    async def move(self, to: datetime) -> None:
        """Redis is there as well: what is admitted from now on is admitted then. Nobody has looked
        what is due."""
        self.now = to
        offset = (to - clock.now()) // timedelta(milliseconds=1)
        await self.sql.execute("UPDATE service_clock SET offset_ms = $1", max(0, offset))
        for partition in range(self.service.settings.partitions):
            await recover(self.sql, self.service.scripts, partition)

    async def settle(self) -> None:
        """Everything that is due is done."""
        await self.service.drained()
        while await self.cycle.run_once(self.now):
            await self.service.drained()

    async def end_of_period(self, user: str, organization: str | None = None) -> datetime:
        """Goes to when the running period has been invoiced; its end."""
        address = self.address(user, organization)
        stored = await store.subscriptions.newest(
            self.sql, address.scope, address.user_id, address.organization_id
        )
        assert stored is not None and stored.period_end is not None
        await self.advance(stored.period_end + GRACE)
        return stored.period_end

    async def invoices(self) -> list[store.invoices.Invoice]:
        """Oldest first."""
        return (await store.invoices.page(self.sql, None, None, None, None, None, 1000))[::-1]

    async def lines(self, invoice: store.invoices.Invoice) -> list[tuple[str, str]]:
        """Kind and amount of each line."""
        found = await store.invoices.lines(self.sql, [invoice.invoice_id])
        return [(one.kind, f"{one.amount:.2f}") for one in found[invoice.invoice_id]]


class Pool:
    """One connection in place of a pool of them."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def acquire(self) -> Pool:
        return self

    async def __aenter__(self) -> Any:
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        pass


@pytest.fixture
async def months(service: Service) -> Any:
    made = Months(service, park_above=1_000_000)
    yield made
    await check(service)
    assert (await check_invoices(made.sql)).findings == []
    await whole(made)


async def whole(months: Months) -> None:
    """I6 and I7: every invoice sums to its total; every billable quantity is on lines exactly
    once, and what is not invoiced yet is known."""
    assert not await months.sql.fetch(
        "SELECT i.invoice_id FROM invoices i JOIN invoice_lines l USING (invoice_id)"
        " GROUP BY i.invoice_id, i.total HAVING SUM(l.amount) <> i.total"
    )
    assert not await months.sql.fetch(
        "SELECT 1 FROM (SELECT usage_id, b.billable, COUNT(l.line_id) AS lines FROM usage_records r"
        "  JOIN billed_usage b USING (subscription_id, billing_period, plan_tier, plan_version,"
        "                             usage_type)"
        "  LEFT JOIN (SELECT l.*, u.partition, u.after_position, u.through, i.subscription_id"
        "             FROM invoice_lines l JOIN invoice_line_usage u USING (line_id)"
        "             JOIN invoices i USING (invoice_id)) l"
        "    ON (l.subscription_id, l.billing_period, l.plan_tier, l.plan_version, l.usage_type,"
        "        l.partition) = (r.subscription_id, r.billing_period, r.plan_tier,"
        "        r.plan_version, r.usage_type, r.partition)"
        "   AND r.position > l.after_position AND r.position <= l.through"
        "  WHERE r.position <= (b.positions ->> r.partition::TEXT)::BIGINT"
        "  GROUP BY usage_id, b.billable) counted"
        " WHERE lines <> 1 AND NOT (lines = 0 AND billable = 0)"  # of a trial
    )
    assert not await months.sql.fetch(
        "SELECT b.subscription_id, b.billing_period, b.usage_type FROM billed_usage b"
        " LEFT JOIN invoices i USING (subscription_id)"
        " LEFT JOIN invoice_lines l ON l.invoice_id = i.invoice_id"
        "  AND l.kind IN ('usage', 'adjustment')"
        "  AND (l.billing_period, l.plan_tier, l.plan_version, l.usage_type)"
        "    = (b.billing_period, b.plan_tier, b.plan_version, b.usage_type)"
        " GROUP BY 1, 2, 3, b.billable, b.plan_tier, b.plan_version"
        " HAVING COALESCE(SUM(l.quantity), 0) <> b.billable"
    )
