"""Usage as the drain leaves it, and what Stripe's meters must say of it in the end."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from ledger.domain.stripe_invoice import OUR_ID
from ledger.domain.stripe_meter import event_name
from ledger.metering import EVERY, Metering
from tests.stripe.owed.shop import Shop

TYPES = ("api_calls", "conversation_minutes")
MOST = 10  # looks: more means that the same is taken again and again
LATER = EVERY + timedelta(seconds=1)
Said = dict[tuple[UUID, str, date], int]


class Metered(Shop):
    """`payer` ids are users or organisations; every one has a subscription that began long ago,
    with months of the calendar."""

    def metering(self, connection: Any = None, api: Any = None) -> Metering:
        return Metering(connection or self.sql, api or self.api, self.clock.now)

    async def subscribe(self, payer: UUID, scope: str = "user") -> UUID:
        subscription: UUID = await self.sql.fetchval(
            "INSERT INTO subscriptions (user_id, organization_id, scope, plan_tier, plan_version,"
            " status, anchor) VALUES ($1, $2, $3, 'basic', 1, 'active', '2026-01-01')"
            " RETURNING subscription_id",
            payer,
            payer if scope == "organization" else None,
            scope,
        )
        await self.sql.execute(
            "INSERT INTO subscription_history (subscription_id, version, action, actor,"
            " occurred_at, effective_at, status, plan_tier, plan_version, anchor, timezone)"
            " SELECT subscription_id, version, 'created', 'test', '2026-01-01', '2026-01-01',"
            " status, plan_tier, plan_version, anchor, timezone FROM subscriptions"
            " WHERE subscription_id = $1",
            subscription,
        )
        return subscription

    async def use(
        self, subscription: UUID, quantity: str, usage_type: str = "api_calls", months_ago: int = 0
    ) -> None:
        """Drained usage, late usage or a correction (below 0)."""
        await self.sql.execute(
            "INSERT INTO billable_usage AS b VALUES ($1, $2, 'basic', 1, $3, 0, $4, 1)"
            " ON CONFLICT (subscription_id, billing_period, plan_tier, plan_version, usage_type,"
            " partition) DO UPDATE SET quantity = b.quantity + EXCLUDED.quantity",
            subscription,
            self.month(months_ago),
            usage_type,
            Decimal(quantity),
        )

    def month(self, ago: int = 0) -> date:
        """The first day of the calendar's month at Stripe's time."""
        first = self.clock.now().date().replace(day=1)
        for _ in range(ago):
            first = (first - timedelta(days=1)).replace(day=1)
        return first

    def to_next_month(self) -> None:
        now = self.clock.now()
        first = (now.replace(day=28) + timedelta(days=4)).replace(day=1, hour=0, minute=9)
        self.clock.advance(first - now)

    async def settle(self) -> None:
        """Everything that can be is taken and delivered."""
        metering = self.metering()
        await self.deliver()  # what is on its way has usage of the same wait
        for _ in range(MOST):
            self.clock.advance(LATER)
            taken = await metering.run_once()
            await self.deliver()
            if not taken:
                return
        raise AssertionError("something is taken for ever")

    async def outstanding(self) -> int:
        return int(
            await self.sql.fetchval(
                "SELECT COUNT(*) FROM stripe_calls WHERE done_at IS NULL AND parked IS NULL"
            )
        )

    def at_stripe(self) -> Said:
        """Units by payer, event name and the month in which Stripe counts them."""
        payers = {
            one["id"]: UUID(one["metadata"][OUR_ID]) for one in self.fake.books.all("customer")
        }
        said: Said = {}
        for (customer, name), events in self.fake.meters.totals().items():
            for at, value in events:
                month = datetime.fromtimestamp(at, UTC).date().replace(day=1)
                key = payers[customer], name, month
                said[key] = said.get(key, 0) + value
        return {key: units for key, units in said.items() if units}

    async def used(self) -> Said:
        """The same as the ledger has it."""
        rows = await self.sql.fetch(
            "SELECT COALESCE(s.organization_id, s.user_id) AS payer, b.usage_type,"
            " b.billing_period, SUM(b.quantity) / t.unit AS units FROM billable_usage b"
            " JOIN subscriptions s USING (subscription_id) JOIN usage_types t USING (usage_type)"
            " GROUP BY 1, 2, 3, t.unit HAVING SUM(b.quantity) <> 0"
        )
        return {
            (one["payer"], event_name(one["usage_type"]), one["billing_period"]): one["units"]
            for one in rows
        }

    async def stand(self, subscription: UUID, months_ago: int = 0) -> dict[str, Any]:
        """What `metered_totals` says of calls in a month, without zeros."""
        row = await self.sql.fetchrow(
            "SELECT quantity AS used, invoiced, delivered, waiting, parked, skipped, untaken"
            " FROM metered_totals WHERE subscription_id = $1 AND billing_period = $2",
            subscription,
            self.month(months_ago),
        )
        assert row is not None
        return {name: int(value) for name, value in dict(row).items() if value}
