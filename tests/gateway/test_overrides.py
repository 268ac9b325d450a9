"""Terms that are agreed with one customer: a version of the plan that nobody else gets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conftest import Service
from tests.gateway.test_catalogue import PLAN, get, put
from tests.gateway.test_subscription_changes import Desk, remaining

TYPE = "api_calls"
MORE: dict[str, Any] = {
    "base_fee": "599.00",
    "entitlements": [
        {"usage_type": TYPE, "scope": "user", "limit": "25", "enforcement": "hard"},
        {"usage_type": "ai_tokens", "scope": "user", "limit": "7", "enforcement": "soft"},
    ],
    "prices": [{"usage_type": TYPE, "model": "per_unit", "unit_amount": "0.005"}],
}


@pytest.fixture
async def desk(service: Service) -> Desk:
    assert (await put(service, "/plans/clinic", PLAN))[0] == 200
    return Desk(service)


async def test_an_override_is_in_force_for_the_next_request_and_for_nobody_else(
    service: Service, desk: Desk
) -> None:
    for user in ("ada", "ben"):
        assert (await desk.create(user, "clinic"))[1]["overridden"] is False
        assert await remaining(service, user) == 9
    status, said = await desk.act("ada", "change", plan_tier="clinic", overrides=MORE)
    assert (status, said["plan_tier"], said["plan_version"], said["overridden"]) == (
        200, "clinic", 2, True
    )  # fmt: skip
    assert await remaining(service, "ada") == 23
    assert await remaining(service, "ben") == 8
    _, shown = await get(service, "/plans/clinic")
    assert (shown["version"], shown["base_fee"]) == (1, "499.00")
    assert [one["version"] for one in (await get(service, "/plans"))[1]["data"]] == [1] * 4
    status, said = await desk.create("cyd", "clinic")
    assert (status, said["plan_version"], said["overridden"]) == (201, 1, False)
    status, shown = await get(service, "/plans/clinic?version=2")
    assert (status, shown) == (200, PLAN | MORE | {"version": 2})
    assert (await get(service, "/plans/clinic?version=3"))[0] == 404
    assert (await get(service, "/plans/clinic?version=x"))[0] == 400
    assert await service.sql.fetchval(
        "SELECT COUNT(*) FROM audit_events WHERE event_type = 'plan_overridden'"
    ) == 1  # fmt: skip


async def test_what_is_not_named_stays_the_plans(service: Service, desk: Desk) -> None:
    more = {"entitlements": [MORE["entitlements"][1]]}
    await desk.create("ada", "clinic", overrides=more)
    assert await remaining(service, "ada") == 9
    _, said, _ = await service.get("/quota/ada")
    assert {one["usage_type"]: one["limit"] for one in said["quotas"]} == {
        TYPE: 10, "ai_tokens": 7
    }  # fmt: skip


async def test_a_subscription_can_begin_with_them_and_its_first_fee_is_theirs(
    service: Service, desk: Desk
) -> None:
    status, said = await desk.create("ada", "clinic", overrides=MORE)
    assert (status, said["plan_version"], said["overridden"]) == (201, 2, True)
    line = await service.sql.fetchval("SELECT line ->> 'amount' FROM pending_lines")
    assert line == "599.00"
    assert await remaining(service, "ada") == 24


async def test_the_same_again_makes_no_new_version(service: Service, desk: Desk) -> None:
    await desk.create("ada", "clinic", overrides=MORE)
    status, said = await desk.act("ada", "change", plan_tier="clinic", overrides=MORE)
    assert (status, said["status"]) == (409, 409)
    many = await asyncio.gather(
        *(
            desk.act("ada", "change", plan_tier="clinic", overrides={"name": "Ada's"}, when=when)
            for when in ("now", "period_end", "period_end")
        )
    )
    assert 200 in {status for status, _ in many}
    assert await service.sql.fetchval("SELECT COUNT(*) FROM billing_plans WHERE version > 1") == 2
    # What says nothing else than the plan is the plan.
    status, said = await desk.act(
        "ada", "change", plan_tier="clinic", when="now", overrides={"base_fee": "499"}
    )
    assert (status, said["plan_version"], said["overridden"]) == (200, 1, False)


async def test_a_preview_shows_the_money_and_makes_nothing(service: Service, desk: Desk) -> None:
    await desk.create("ada", "clinic")
    before = await service.sql.fetchval("SELECT COUNT(*) FROM audit_events")
    status, said = await desk.act("ada", "change", plan_tier="clinic", overrides=MORE, preview=True)
    assert (status, said["subscription"]["overridden"]) == (200, True)
    assert {line["kind"] for line in said["lines"]} <= {"credit", "proration"}
    assert await service.sql.fetchval("SELECT COUNT(*) FROM billing_plans WHERE version = 2") == 0
    assert await service.sql.fetchval("SELECT COUNT(*) FROM audit_events") == before
    assert (await desk.read("ada"))["overridden"] is False


async def test_they_wait_for_the_periods_end_if_that_is_wished(desk: Desk) -> None:
    await desk.create("ada", "clinic")
    status, said = await desk.act(
        "ada", "change", plan_tier="clinic", overrides=MORE, when="period_end"
    )
    assert (status, said["overridden"], said["pending_change"]["plan_version"]) == (200, False, 2)


async def test_they_stay_when_the_plan_has_a_new_version_until_it_is_changed_to(
    service: Service, desk: Desk
) -> None:
    await desk.create("ada", "clinic", overrides=MORE)
    limit = PLAN["entitlements"][0] | {"limit": "50"}
    _, said, _ = await put(service, "/plans/clinic", PLAN | {"entitlements": [limit]})
    assert said["version"] == 3
    assert await remaining(service, "ada") == 24
    status, said = await desk.act("ada", "change", plan_tier="clinic", when="now")
    assert (status, said["plan_version"], said["overridden"]) == (200, 3, False)
    assert await remaining(service, "ada") == 48


async def test_a_public_version_after_a_private_one_is_compared_with_the_public_one(
    service: Service, desk: Desk
) -> None:
    await desk.create("ada", "clinic", overrides=MORE)
    _, said, headers = await put(service, "/plans/clinic", PLAN, **{"If-Match": '"1"'})
    assert (said["version"], headers["ETag"]) == (1, '"1"')
    assert (await put(service, "/plans/clinic", PLAN, **{"If-Match": '"2"'}))[0] == 412


async def test_the_default_tier_follows_its_newest_public_version(
    service: Service, desk: Desk
) -> None:
    assert await remaining(service, "guest") == 9_999
    overrides = {"entitlements": [MORE["entitlements"][0]]}
    status, said = await desk.create("ada", "basic", overrides=overrides)
    assert (status, said["plan_version"]) == (201, 2)
    assert await remaining(service, "ada") == 24
    assert await remaining(service, "another guest") == 9_999
    assert (await desk.read("another guest"))["plan_version"] == 1
    assert (await desk.read("another guest"))["overridden"] is False


@pytest.mark.parametrize(
    "overrides",
    [
        {"colour": "sEcReT"},
        {"tier": "sEcReT"},
        {"currency": "EUR"},
        {"base_fee": "1.001"},
        {"base_fee": 5},
        {"name": ""},
        {"entitlements": [MORE["entitlements"][0]] * 2},
        {"entitlements": [MORE["entitlements"][0] | {"usage_type": "none_such"}]},
        {"entitlements": [MORE["entitlements"][0] | {"limit": "0.5"}]},
        {"prices": MORE["prices"] * 2},
        {"prices": [{"usage_type": TYPE, "model": "per_unit"}]},
        [],
        "sEcReT",
    ],
    ids=str,
)
async def test_what_cannot_be_sold_is_refused_and_nothing_is_kept(
    service: Service, desk: Desk, overrides: Any
) -> None:
    await desk.create("ada", "clinic")
    for status, said in (
        await desk.create("ben", "clinic", overrides=overrides),
        await desk.act("ada", "change", plan_tier="clinic", overrides=overrides),
    ):
        assert (status, said["type"]) == (400, "urn:billing:problem:invalid-request")
        assert "sEcReT" not in str(said)
    assert await service.sql.fetchval("SELECT COUNT(*) FROM billing_plans WHERE version > 1") == 0
    assert await service.sql.fetchval("SELECT COUNT(*) FROM subscriptions") == 1
