"""What a simulation reads: many subscriptions at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from ledger.db import Executor
from ledger.domain.in_force import Stand
from ledger.store.invoices import ToBill
from ledger.store.queries import QUERIES
from ledger.store.subscriptions import Subscription, of_row


async def payers(
    db: Executor,
    after: UUID,
    user_id: UUID | None,
    organization_id: UUID | None,
    tier: str | None,
    most: int,
) -> list[Subscription]:
    """Subscriptions in the order of their ids: all, ended ones too, or of one payer; or the live
    ones on a public version of a plan."""
    rows = await db.fetch(QUERIES["payers"], after, user_id, organization_id, tier, most)
    return [of_row(row) for row in rows]


async def stands(db: Executor, ids: Sequence[UUID]) -> dict[UUID, list[Stand]]:
    """The histories of subscriptions, oldest first."""
    found: dict[UUID, list[Stand]] = defaultdict(list)
    for row in await db.fetch(QUERIES["stands_of"], ids):
        fields = {name: row[name] for name in Stand.__struct_fields__}
        found[row["subscription_id"]].append(Stand(**fields))
    return found


async def ends(
    db: Executor, ids: Sequence[UUID], since: date, until: date
) -> dict[UUID, dict[date, datetime]]:
    """When each billing period ended that is over and began in `[since, until)`; of two that began
    on one day the last."""
    found: dict[UUID, dict[date, datetime]] = defaultdict(dict)
    for row in await db.fetch(QUERIES["ends_of"], ids, since, until):
        found[row["subscription_id"]][row["billing_period"]] = row["period_end"]
    return found


async def used(
    db: Executor, ids: Sequence[UUID], since: date, until: date
) -> dict[UUID, list[ToBill]]:
    """What was used in billing periods that began in `[since, until)`, as if nothing of it had
    been invoiced."""
    found: dict[UUID, list[ToBill]] = defaultdict(list)
    for row in await db.fetch(QUERIES["used_by"], ids, since, until):
        found[row["subscription_id"]].append(_to_bill(row))
    return found


async def used_without_subscription(
    db: Executor, user_id: UUID, since: date, until: date
) -> list[ToBill]:
    """The same of a user on the default plan."""
    rows = await db.fetch(QUERIES["used_without_subscription"], user_id, since, until)
    return [_to_bill(row) for row in rows]


def _to_bill(row: Mapping[str, Any]) -> ToBill:
    return ToBill(
        billing_period=row["billing_period"],
        plan_tier=row["plan_tier"],
        plan_version=row["plan_version"],
        usage_type=row["usage_type"],
        measured=row["measured"],
        records=row["records"],
        billed_measured=None,
        billed_records=None,
        billed=None,
        positions={},
        through={},
    )
