"""Subscriptions over HTTP: what is answered is in force for the next request."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from ledger.domain.ids import dev_uuid
from ledger.domain.subscription import PendingChange
from tests.conftest import Service
from tests.ledger.plans import add_plan, allows, pool

TYPE = "api_calls"
CONFLICT = "urn:billing:problem:conflict"


class Desk:
    """Finance at work on the subscriptions of one test."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.token = service.token("finance")

    async def create(self, user: str, plan_tier: str, **said: Any) -> tuple[int, Any]:
        body = {"user_id": user, "plan_tier": plan_tier, **said}
        status, answer, _ = await self.service.post("/subscriptions", body, headers=self.token)
        return status, answer

    async def act(
        self, user: str, verb: str, query: str = "", if_match: str = "", **said: Any
    ) -> tuple[int, Any]:
        headers = self.token | ({"If-Match": if_match} if if_match else {})
        path = f"/subscription/{user}/{verb}{query}"
        status, answer, _ = await self.service.post(path, said or None, headers=headers)
        return status, answer

    async def read(self, user: str, path: str = "") -> Any:
        _, answer, _ = await self.service.get(f"/subscription/{user}{path}", headers=self.token)
        return answer

    async def etag(self, user: str) -> str:
        headers = (await self.service.get(f"/subscription/{user}", headers=self.token))[2]
        return {name.lower(): value for name, value in headers.items()}["etag"]


@pytest.fixture
async def desk(service: Service) -> Desk:
    await add_plan(service.sql, "small", allows(TYPE, "10"))
    await add_plan(service.sql, "large", allows(TYPE, "100"))
    await add_plan(service.sql, "yearly", allows(TYPE, "100"), interval="year")
    await service.sql.execute("UPDATE billing_plans SET base_fee = 31 WHERE plan_tier = 'small'")
    await service.sql.execute("UPDATE billing_plans SET base_fee = 310 WHERE plan_tier = 'large'")
    return Desk(service)


async def remaining(service: Service, user: str, organization: str | None = None) -> Any:
    body = {"user_id": user, "usage_type": TYPE, "quantity": 1}
    status, said, _ = await service.post(
        "/usage", body | ({"organization_id": organization} if organization else {})
    )
    return said["quota_remaining"] if status == 201 else (status, said.get("reason"))


async def test_a_subscription_is_in_force_for_the_next_request(
    service: Service, desk: Desk
) -> None:
    await remaining(service, "ada")
    status, said = await desk.create("ada", "small")
    assert (status, said["status"], said["plan_tier"], said["plan_version"]) == (
        201, "active", "small", 1
    )  # fmt: skip
    assert await remaining(service, "ada") == 9
    assert (await desk.read("ada"))["subscription_id"] == said["subscription_id"]


async def test_there_is_one_at_a_time(desk: Desk) -> None:
    await desk.create("ada", "small")
    status, said = await desk.create("ada", "large")
    assert (status, said["type"]) == (409, CONFLICT)
    many = await asyncio.gather(*(desk.create("ben", "small") for _ in range(5)))
    assert sorted(status for status, _ in many) == [201, 409, 409, 409, 409]


async def test_an_organizations_subscription_reaches_its_users(
    service: Service, desk: Desk
) -> None:
    await add_plan(service.sql, "shared", pool(TYPE, "20"), allows(TYPE, "15"))
    await remaining(service, "ada", "acme")
    status, said = await desk.create("boss", "shared", scope="organization", organization_id="acme")
    assert (status, said["scope"], said["organization_id"]) == (
        201, "organization", str(dev_uuid("acme"))
    )  # fmt: skip
    assert await remaining(service, "ada", "acme") in (13, 14)  # with or without what was before
    of_acme = "?scope=organization&organization_id=acme"
    assert (await desk.act("boss", "pause", of_acme))[0] == 200
    assert (await remaining(service, "ada", "acme"))[0] == 403
    assert (await desk.act("boss", "resume", of_acme))[0] == 200
    assert await remaining(service, "ada", "acme") in (12, 13)


async def test_an_upgrade_is_at_once_prorated_and_keeps_what_is_used(
    service: Service, desk: Desk
) -> None:
    await desk.create("ada", "small")
    assert await remaining(service, "ada") == 9
    status, shown = await desk.act("ada", "change", plan_tier="large", preview=True)
    assert (status, shown["preview"], shown["subscription"]["plan_tier"]) == (200, True, "large")
    kinds = {line["kind"] for line in shown["lines"]}
    assert kinds <= {"credit", "proration"}
    assert sum(float(line["amount"]) for line in shown["lines"]) == pytest.approx(
        float(shown["total"])
    )
    assert (await desk.read("ada"))["plan_tier"] == "small"
    assert await remaining(service, "ada") == 8
    status, said = await desk.act("ada", "change", plan_tier="large")
    assert (status, said["plan_tier"], said["pending_change"]) == (200, "large", None)
    assert await remaining(service, "ada") == 97
    lines = await service.sql.fetch("SELECT line FROM pending_lines ORDER BY created_at")
    kept = [msgspec.json.decode(one["line"]) for one in lines]
    assert kept[0]["kind"] == "base_fee"
    assert {one["kind"] for one in kept[1:]} == kinds


async def test_a_downgrade_waits_for_the_periods_end_and_can_be_taken_back(
    service: Service, desk: Desk
) -> None:
    await desk.create("ada", "large")
    status, said = await desk.act("ada", "change", plan_tier="small")
    assert (status, said["plan_tier"]) == (200, "large")
    assert said["pending_change"]["plan_tier"] == "small"
    assert said["pending_change"]["at"] == said["current_period"]["end"]
    assert await remaining(service, "ada") == 99
    status, said = await desk.act("ada", "change", plan_tier="large")
    assert (status, said["pending_change"]) == (200, None)


async def test_what_is_due_is_in_force_before_anybody_has_noted_it(
    service: Service, desk: Desk
) -> None:
    await desk.create("ada", "large")
    due = PendingChange("small", 1, "month", datetime.now(UTC) - timedelta(minutes=1))
    await service.sql.execute(
        "UPDATE subscriptions SET pending_change = $1, period_end = $2,"
        " version = nextval('subscription_versions')",
        msgspec.json.encode(due).decode(),
        due.at,
    )
    assert (await desk.read("ada"))["plan_tier"] == "small"
    assert await remaining(service, "ada") == 9
    status, said = await desk.act("ada", "cancel")
    assert (status, said["plan_tier"]) == (200, "small")
    actions = [one["action"] for one in (await desk.read("ada", "/history"))["data"]]
    assert actions == ["cancel", "fall_due", "create"]


async def test_cancelled_now_it_is_the_default_tier_and_can_begin_again(
    service: Service, desk: Desk
) -> None:
    await desk.create("ada", "small")
    status, said = await desk.act("ada", "cancel", when="now")
    assert (status, said["status"]) == (200, "canceled")
    assert await remaining(service, "ada") > 100
    assert (await desk.read("ada"))["subscription_id"] is None
    status, said = await desk.act("ada", "reactivate")
    assert (status, said["status"]) == (200, "active")
    assert await remaining(service, "ada") < 10


async def test_cancelling_at_the_periods_end_can_be_taken_back(desk: Desk) -> None:
    await desk.create("ada", "small")
    status, said = await desk.act("ada", "cancel")
    assert (status, said["cancel_at"]) == (200, said["current_period"]["end"])
    assert (await desk.act("ada", "cancel"))[0] == 409
    status, said = await desk.act("ada", "uncancel")
    assert (status, said["cancel_at"], said["status"]) == (200, None, "active")
    assert (await desk.act("ada", "uncancel"))[0] == 409


async def test_a_pause_stops_access_until_it_is_resumed(service: Service, desk: Desk) -> None:
    await desk.create("ada", "small")
    await desk.act("ada", "pause")
    assert (await remaining(service, "ada"))[0] == 403
    await desk.act("ada", "resume")
    assert await remaining(service, "ada") == 9


async def test_a_trial_is_free_and_begins_the_periods_when_it_ends(
    service: Service, desk: Desk
) -> None:
    status, said = await desk.create("ada", "small", trial_days=14)
    assert (status, said["status"]) == (201, "trialing")
    assert said["trial_end"] == said["current_period"]["end"]
    assert not await service.sql.fetch("SELECT FROM pending_lines")


async def test_a_change_of_an_older_version_than_the_newest_is_refused(desk: Desk) -> None:
    await desk.create("ada", "small")
    seen = await desk.etag("ada")
    assert (await desk.act("ada", "pause", if_match=seen))[0] == 200
    status, said = await desk.act("ada", "resume", if_match=seen)
    assert (status, said["type"]) == (412, CONFLICT)
    assert (await desk.act("ada", "resume", if_match="nonsense"))[0] == 412
    assert (await desk.act("ada", "resume", if_match="*"))[0] == 200
    seen = await desk.etag("ada")
    many = await asyncio.gather(*(desk.act("ada", "pause", if_match=seen) for _ in range(4)))
    assert sorted(status for status, _ in many) == [200, 412, 412, 412]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"plan_tier": "none_such"}, 400),
        ({"plan_tier": "small", "timezone": "Mars/Olympus"}, 400),
        ({"plan_tier": "small", "timezone": "../../etc/passwd"}, 400),
        ({"plan_tier": "small", "timezone": "posix/UTC"}, 400),
        ({"plan_tier": "small", "timezone": "localtime"}, 400),
        ({"plan_tier": "small", "scope": "organization"}, 400),
        ({"plan_tier": "small", "trial_days": 400}, 400),
        ({"plan_tier": "small", "trial_days": -1}, 400),
        ({"plan_tier": "small", "start": "2026-01-01T00:00:00"}, 400),
        ({"plan_tier": "small", "start": "2999-01-01T00:00:00Z"}, 409),
        ({"plan_tier": "small", "start": "1969-01-01T00:00:00Z"}, 409),
        ({"plan_tier": "small", "start": "0001-01-01T00:00:00Z"}, 409),
        ({"plan_tier": "small", "start": "0001-01-01T00:00:00+14:00"}, 409),
        ({"plan_tier": "small", "colour": "red"}, 400),
        ({}, 400),
    ],
)
async def test_a_bad_beginning_is_refused_and_nothing_is_kept(
    service: Service, desk: Desk, said: dict[str, Any], status: int
) -> None:
    body = {"user_id": "ada", **said}
    found, answer, _ = await service.post("/subscriptions", body, headers=desk.token)
    assert (found, answer["status"]) == (status, status)
    assert not await service.sql.fetch("SELECT FROM subscriptions")
    assert not await service.sql.fetch("SELECT FROM outbox")


@pytest.mark.parametrize(
    ("verb", "said", "status"),
    [
        ("change", {"plan_tier": "none_such"}, 400),
        ("change", {}, 400),
        ("change", {"plan_tier": "yearly", "when": "now"}, 409),
        ("change", {"plan_tier": "small"}, 409),
        ("change", {"plan_tier": "large", "when": "later"}, 400),
        ("cancel", {"when": "never"}, 400),
        ("resume", {}, 409),
        ("reactivate", {}, 409),
        ("pause", {"preview": 1}, 400),
        ("explode", {}, 404),
    ],
)
async def test_a_bad_change_is_refused_and_changes_nothing(
    service: Service, desk: Desk, verb: str, said: dict[str, Any], status: int
) -> None:
    await desk.create("ada", "small")
    before = await service.sql.fetch("SELECT * FROM subscriptions")
    assert (await desk.act("ada", verb, **said))[0] == status
    assert await service.sql.fetch("SELECT * FROM subscriptions") == before
    assert len(await service.sql.fetch("SELECT FROM subscription_history")) == 1


async def test_who_has_none_has_nothing_to_change(desk: Desk) -> None:
    for verb in ("cancel", "pause", "resume", "reactivate"):
        assert (await desk.act("nobody", verb))[0] == 404


@pytest.mark.parametrize("role", ["user", "org_admin", "service", None])
async def test_only_finance_and_admins_may(service: Service, desk: Desk, role: Any) -> None:
    await desk.create("ada", "small")
    headers = service.token(role, user="ada") if role else {}
    body = {"user_id": "eve", "plan_tier": "small"}
    expected = 403 if role else 401
    assert (await service.post("/subscriptions", body, headers=headers))[0] == expected
    assert (await service.post("/subscription/ada/cancel", None, headers=headers))[0] == expected


async def test_the_history_says_what_by_whom_and_since_when(desk: Desk) -> None:
    await desk.create("ada", "small")
    await desk.act("ada", "pause")
    await desk.act("ada", "resume")
    found = await desk.read("ada", "/history?limit=2")
    assert [one["action"] for one in found["data"]] == ["resume", "pause"]
    assert found["has_more"] is True
    assert found["data"][1]["status"] == "paused"
    assert {one["actor"] for one in found["data"]} == {"finance-dev"}
    last = found["data"][-1]["version"]
    rest = await desk.read("ada", f"/history?starting_after={last}")
    assert ([one["action"] for one in rest["data"]], rest["has_more"]) == (["create"], False)
    beyond = await desk.read("ada", f"/history?starting_after={2**63}")
    assert beyond["status"] == 400


async def test_another_organizations_name_changes_nothing_and_is_not_in_the_audit_trail(
    service: Service, desk: Desk
) -> None:
    await desk.create("ada", "small", organization_id="acme")
    assert (await desk.act("ada", "pause", "?organization_id=other"))[0] == 404
    assert (await desk.act("ada", "pause"))[0] == 200
    await desk.create("boss", "small", organization_id="north", scope="organization")
    path = "?scope=organization&organization_id=north"
    assert (await desk.act("somebody", "pause", path))[0] == 200
    told = await service.sql.fetch(
        "SELECT user_id, organization_id FROM audit_events"
        " WHERE event_type = 'subscription_paused' ORDER BY occurred_at"
    )
    assert [tuple(one) for one in told] == [
        (dev_uuid("ada"), dev_uuid("acme")), (dev_uuid("boss"), dev_uuid("north"))
    ]  # fmt: skip


async def test_subscriptions_are_listed_newest_first(service: Service, desk: Desk) -> None:
    for user in ("ada", "ben", "cyd"):
        await desk.create(user, "small", organization_id="acme")
    await desk.create("dan", "small")
    await desk.act("ben", "pause")

    async def users(query: str) -> list[str]:
        _, said, _ = await service.get(f"/subscriptions?{query}", headers=desk.token)
        return [one["user_id"] for one in said["data"]]

    ids = [str(dev_uuid(one)) for one in ("dan", "cyd", "ben", "ada")]
    assert await users("") == ids
    assert await users("organization_id=acme") == ids[1:]
    assert await users("status=paused") == [ids[2]]
    _, first, _ = await service.get("/subscriptions?limit=2", headers=desk.token)
    assert first["has_more"] is True
    after = first["data"][-1]["subscription_id"]
    assert await users(f"limit=2&starting_after={after}") == ids[2:]
    status, _, _ = await service.get(f"/subscriptions?starting_after={uuid4()}", headers=desk.token)
    assert status == 400
    theirs = service.token("org_admin", organizations=["acme"])
    status, said, _ = await service.get("/subscriptions?organization_id=acme", headers=theirs)
    assert (status, len(said["data"])) == (200, 3)
    assert (await service.get("/subscriptions?organization_id=other", headers=theirs))[0] == 404
    assert (await service.get("/subscriptions", headers=theirs))[0] == 403


async def test_the_first_day_is_that_of_the_time_zone(desk: Desk) -> None:
    start = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    _, said = await desk.create("ada", "small", start=start, timezone="Pacific/Auckland")
    begun = datetime.fromisoformat(said["current_period"]["start"])
    assert begun <= datetime.fromisoformat(start) < begun + timedelta(hours=24)
    assert begun.astimezone(UTC).hour in (11, 12)
    assert isinstance(begun.date(), date)
