"""Bringing the subscriptions of a plan to another version of it, as finance and the ledger do."""

from __future__ import annotations

from typing import Any

from ledger import db
from ledger.plan_migrations import PlanMigrations
from ledger.supersede import Superseder
from tests.conftest import Service
from tests.invoices.conftest import GRACE, TYPE, Months
from tests.ledger.plans import add_plan, allows

OLD, NEW = allows(TYPE, "10"), allows(TYPE, "50")


async def ask(service: Service, tier: str = "pro", **said: Any) -> Any:
    path = f"/plans/{tier}/migrate"
    status, answer, _ = await service.post(path, said or None, headers=service.token("finance"))
    assert status == 202, answer
    return answer


async def told(service: Service, asked: Any) -> Any:
    """What it has come to."""
    path = f"/plans/{asked['plan_tier']}/migrations/{asked['migration_id']}"
    status, answer, _ = await service.get(path, headers=service.token("finance"))
    assert status == 200, answer
    return answer


def worker(months: Months, connection: db.Connection | None = None) -> PlanMigrations:
    superseder = Superseder(months.service.scripts, "basic", months.service.settings.partitions)
    return PlanMigrations(connection or months.sql, superseder, GRACE)


async def work(months: Months) -> int:
    """Everything that is asked for is done; how many subscriptions it came to."""
    steps = 0
    while more := await worker(months).run_once(months.now):
        steps += more
    return steps


async def versions(months: Months) -> list[int]:
    rows = await months.sql.fetch("SELECT plan_version FROM subscriptions ORDER BY 1")
    return [row["plan_version"] for row in rows]


async def version(months: Months, allowed: dict[str, Any], fee: int) -> None:
    made = await add_plan(months.sql, "pro", allowed)
    await months.sql.execute(
        "UPDATE billing_plans SET base_fee = $2 WHERE plan_tier = 'pro' AND version = $1",
        made,
        fee,
    )


async def two_versions(months: Months) -> None:
    """Ada and Ben on the first of two versions of a plan."""
    await version(months, OLD, 30)
    for user in ("ada", "ben"):
        await months.create(user, "pro")
    await version(months, NEW, 60)
