"""Plans and usage types over HTTP: versions are never edited, decimals never change."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger import reload
from ledger.catalogue import shipped
from tests.conftest import Service

PLAN: dict[str, Any] = {
    "tier": "clinic", "name": "Clinic", "currency": "USD", "interval": "month",
    "base_fee": "499.00", "trial_days": 0, "premium": False,
    "entitlements": [
        {"usage_type": "api_calls", "scope": "user", "limit": "10", "enforcement": "hard"}
    ],
    "prices": [{"usage_type": "api_calls", "model": "per_unit", "unit_amount": "0.01"}],
}  # fmt: skip


async def put(service: Service, path: str, body: Any, role: Any = "admin", **headers: str) -> Any:
    token = service.token(role) if role else {}
    async with service.http.put(
        f"{service.url}/api/v1/billing{path}", json=body, headers=token | headers
    ) as response:
        return response.status, await response.json(content_type=None), response.headers


async def get(service: Service, path: str) -> tuple[int, Any]:
    status, said, _ = await service.get(path, headers=service.token("finance"))
    return status, said


async def test_the_shipped_catalogue_is_there(service: Service) -> None:
    status, said = await get(service, "/plans")
    assert status == 200
    assert [one["tier"] for one in said["data"]] == sorted(one.tier for one in shipped().plans)
    _, basic = await get(service, "/plans/basic")
    assert (basic["version"], basic["base_fee"]) == (1, "0.00")
    assert (await get(service, "/plans/none_such"))[0] == 404
    _, types = await get(service, "/usage-types")
    assert {one["usage_type"]: one["decimal_places"] for one in types["data"]} == {
        one.usage_type: one.decimal_places for one in shipped().usage_types
    }


async def test_a_change_is_a_new_version_and_the_same_again_is_none(service: Service) -> None:
    status, said, headers = await put(service, "/plans/clinic", PLAN)
    assert (status, said["version"], headers["ETag"]) == (200, 1, '"1"')
    assert said == PLAN | {"version": 1}
    assert (await put(service, "/plans/clinic", PLAN))[1]["version"] == 1
    assert (await put(service, "/plans/clinic", PLAN | {"base_fee": "499"}))[1]["version"] == 1
    dearer = PLAN | {"base_fee": "599.00"}
    assert (await put(service, "/plans/clinic", dearer))[1]["version"] == 2
    assert (await get(service, "/plans/clinic"))[1]["base_fee"] == "599.00"
    assert await service.sql.fetchval("SELECT COUNT(*) FROM audit_events") == 2


async def test_two_at_once_are_two_versions_or_one_is_stale(service: Service) -> None:
    bodies = [PLAN | {"name": f"Clinic {number}"} for number in range(4)]
    said = await asyncio.gather(*(put(service, "/plans/clinic", one) for one in bodies))
    assert sorted(one[1]["version"] for one in said) == [1, 2, 3, 4]
    said = await asyncio.gather(
        *(put(service, "/plans/clinic", one, **{"If-Match": '"4"'}) for one in bodies)
    )
    # One of them is what the newest version says already: it changes nothing.
    assert sorted(one[0] for one in said) in ([200, 200, 412, 412], [200, 412, 412, 412])


@pytest.mark.parametrize(
    "changed",
    [
        {"base_fee": "1.001"},
        {"base_fee": 499},
        {"base_fee": "-1"},
        {"base_fee": "NaN"},
        {"currency": "usd"},
        {"interval": "week"},
        {"trial_days": -1},
        {"colour": "red"},
        {"tier": "other"},
        {"entitlements": PLAN["entitlements"] * 2},
        {"entitlements": [PLAN["entitlements"][0] | {"usage_type": "none_such"}]},
        {"entitlements": [PLAN["entitlements"][0] | {"limit": "0.5"}]},
        {"prices": [{"usage_type": "api_calls", "model": "per_unit"}]},
        {"prices": [{"usage_type": "api_calls", "model": "sPeCiAl"}]},
        {"prices": PLAN["prices"] * 2},
    ],
    ids=lambda changed: "-".join(changed) + str(len(str(changed))),
)
async def test_a_plan_that_cannot_be_sold_is_refused(
    service: Service, changed: dict[str, Any]
) -> None:
    status, said, _ = await put(service, "/plans/clinic", PLAN | changed)
    assert (status, said["type"]) == (400, "urn:billing:problem:invalid-request")
    assert "sPeCiAl" not in str(said)
    assert (await get(service, "/plans/clinic"))[0] == 404


async def test_only_finance_and_admins_may(service: Service) -> None:
    refused: list[tuple[Any, int]] = [
        ("service", 403), ("user", 403), ("org_admin", 403), (None, 401)
    ]  # fmt: skip
    for role, expected in refused:
        token = service.token(role, user="ada") if role else {}
        for path in ("/plans", "/plans/basic", "/usage-types"):
            assert (await service.get(path, headers=token))[0] == expected
    assert (await put(service, "/plans/clinic", PLAN, role="finance"))[0] == 200
    assert (await put(service, "/plans/clinic", PLAN, role="service"))[0] == 403
    new = {"decimal_places": 0}
    assert (await put(service, "/usage-types/x_rays", new, role="finance"))[0] == 403


async def test_a_new_usage_type_can_be_used_and_priced(service: Service) -> None:
    usage = {"user_id": "ada", "usage_type": "x_rays", "quantity": 1.5}
    await service.post("/usage", {**usage, "usage_type": "api_calls", "quantity": 1})
    status, said, _ = await put(
        service, "/usage-types/x_rays", {"decimal_places": 1, "description": "pictures"}
    )
    assert (status, said) == (
        200, {"usage_type": "x_rays", "decimal_places": 1, "description": "pictures"}
    )  # fmt: skip
    price = {"usage_type": "x_rays", "model": "per_unit", "unit_amount": "5"}
    right = {"usage_type": "x_rays", "scope": "user", "limit": None, "enforcement": "soft"}
    plan = PLAN | {"prices": [price], "entitlements": [right]}
    assert (await put(service, "/plans/clinic", plan))[0] == 200
    body = {"user_id": "ada", "plan_tier": "clinic"}
    await service.post("/subscriptions", body, headers=service.token("finance"))
    assert (await service.post("/usage", usage))[0] == 201
    _, again, _ = await put(service, "/usage-types/x_rays", {"decimal_places": 1})
    assert again["description"] == "pictures"
    status, said, _ = await put(service, "/usage-types/x_rays", {"decimal_places": 2})
    assert (status, said["type"]) == (409, "urn:billing:problem:conflict")
    for name in ("X", "1x", "a-b", "a" * 51):
        assert (await put(service, f"/usage-types/{name}", {"decimal_places": 0}))[0] == 400


async def test_accounts_without_a_subscription_follow_the_default_tier(service: Service) -> None:
    usage = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}
    _, before, _ = await service.post("/usage", usage)
    assert before["quota_remaining"] > 100
    await put(service, "/plans/basic", PLAN | {"tier": "basic", "base_fee": "0.00"})
    partitions = service.settings.partitions
    for _ in range(reload.TIMES):
        await service.sql.execute("UPDATE outbox SET next_attempt_at = NOW()")
        work = reload.run_once(service.sql, service.servers, service.scripts, partitions)
        assert await work == 1
    _, after, _ = await service.post("/usage", usage)
    assert after["quota_remaining"] == 8
    await service.sql.execute("UPDATE outbox SET next_attempt_at = NOW()")
    assert await reload.run_once(service.sql, service.servers, service.scripts, partitions) == 0
