"""GET /subscription/{user_id}: the stored one, or the default tier standing in for it."""

from __future__ import annotations

from datetime import UTC, date, datetime

from ledger.domain.ids import dev_uuid
from ledger.domain.period import period_at
from tests.conftest import Service
from tests.ledger.plans import CALENDAR_MONTH, allows, on_plan, organization_on_plan

FIELDS = [
    "subscription_id",
    "user_id",
    "organization_id",
    "scope",
    "plan_tier",
    "plan_version",
    "overridden",
    "status",
    "current_period",
    "trial_end",
    "cancel_at",
    "pending_change",
    "created_at",
    "updated_at",
]


async def test_a_user_without_one_is_on_the_default_tier(shared: Service) -> None:
    status, said, _ = await shared.get("/subscription/nobody", headers=shared.token("admin"))
    assert (status, list(said)) == (200, FIELDS)
    month = period_at(datetime.now(UTC), CALENDAR_MONTH, "month", "UTC")
    period = said.pop("current_period")
    assert datetime.fromisoformat(period["start"]) == month.start
    assert datetime.fromisoformat(period["end"]) == month.end
    expected = dict.fromkeys(FIELDS) | {
        "user_id": str(dev_uuid("nobody")),
        "scope": "user",
        "plan_tier": "basic",
        "plan_version": 1,
        "overridden": False,
        "status": "active",
    }
    del expected["current_period"]
    assert said == expected


async def test_a_stored_one_is_shown_with_its_period(shared: Service) -> None:
    found = await on_plan(
        shared.sql,
        "stored",
        allows("api_calls", "5"),
        organization="clinic",
        status="past_due",
        anchor=date(2024, 1, 31),
    )
    status, said, _ = await shared.get("/subscription/stored", headers=shared.token("finance"))
    assert (status, list(said)) == (200, FIELDS)
    assert said["subscription_id"] == str(found)
    assert said["organization_id"] == str(dev_uuid("clinic"))
    assert (said["plan_tier"], said["plan_version"], said["status"], said["scope"]) == (
        "of_stored",
        1,
        "past_due",
        "user",
    )
    period = period_at(datetime.now(UTC), date(2024, 1, 31), "month", "UTC")
    assert datetime.fromisoformat(said["current_period"]["start"]) == period.start
    assert said["created_at"].endswith("Z") and said["updated_at"].endswith("Z")


async def test_an_ended_one_is_the_default_tier_again(shared: Service) -> None:
    await on_plan(shared.sql, "ended", allows("api_calls", "5"), status="canceled")
    _, said, _ = await shared.get("/subscription/ended", headers=shared.token("admin"))
    assert (said["subscription_id"], said["plan_tier"]) == (None, "basic")


async def test_an_organizations_is_addressed_by_scope(shared: Service) -> None:
    found = await organization_on_plan(shared.sql, "clinic-o", allows("api_calls", "5"))
    path = "/subscription/clinic-o-owner?scope=organization&organization_id=clinic-o"
    status, said, _ = await shared.get(path, headers=shared.token("admin"))
    assert (status, said["subscription_id"], said["scope"]) == (200, str(found), "organization")
    assert said["user_id"] == str(dev_uuid("clinic-o-owner"))


async def test_an_organization_without_one_is_not_found(shared: Service) -> None:
    path = "/subscription/ada?scope=organization&organization_id=none"
    status, said, _ = await shared.get(path, headers=shared.token("admin"))
    assert (status, said["type"]) == (404, "urn:billing:problem:not-found")


async def test_the_scope_organization_needs_an_organization(shared: Service) -> None:
    path = "/subscription/ada?scope=organization"
    status, said, _ = await shared.get(path, headers=shared.token("admin"))
    assert (status, said["type"]) == (400, "urn:billing:problem:invalid-request")


async def test_another_scope_is_refused_and_not_repeated(shared: Service) -> None:
    path = "/subscription/ada?scope=sEcReT"
    status, said, _ = await shared.get(path, headers=shared.token("admin"))
    assert (status, "sEcReT" in str(said)) == (400, False)
