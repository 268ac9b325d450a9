"""TEST_CLOCK: months in seconds, over HTTP, and everything that falls due is done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from ledger.reconcile.invoices import check_invoices
from ledger.settings import SettingError, load
from tests.conftest import Service, Services
from tests.flow.invariants import check


@pytest.fixture
async def timed(services: Services) -> Service:
    settings = msgspec.structs.replace(services._settings, test_clock=True)
    return await services.start(settings)


async def advance(service: Service, to: datetime, role: Any = "admin") -> tuple[int, Any]:
    body = {"advance_to": to.isoformat()}
    status, said, _ = await service.post("/test-clock", body, headers=service.token(role))
    return status, said


async def test_a_year_of_an_organization_passes_in_seconds(timed: Service) -> None:
    finance = timed.token("finance")
    body = {
        "user_id": "boss", "organization_id": "acme", "scope": "organization",
        "plan_tier": "professional",
    }  # fmt: skip
    status, said, _ = await timed.post("/subscriptions", body, headers=finance)
    assert status == 201, said
    users = [f"user-{number}" for number in range(100)]
    for _ in range(12):
        records = [
            {"user_id": user, "organization_id": "acme", "usage_type": "api_calls", "quantity": 3}
            for user in users
        ]
        assert (await timed.post("/usage/batch", {"records": records}))[1]["accepted"] == 100
        path = "/subscription/boss?scope=organization&organization_id=acme"
        end = (await timed.get(path, headers=finance))[1]["current_period"]["end"]
        status, said = await advance(timed, datetime.fromisoformat(end) + timedelta(hours=1))
        assert (status, said["steps"] >= 2) == (200, True)
    _, said, _ = await timed.get("/invoices?organization_id=acme", headers=finance)
    assert len(said["data"]) == 13
    used = [
        Decimal(line["quantity"])
        for invoice in said["data"]
        for line in invoice["lines"]
        if line["kind"] == "usage"
    ]
    assert used == [Decimal(300)] * 12
    periods = [(one["period"]["start"], one["period"]["end"]) for one in said["data"]]
    assert len(set(periods)) == 13
    await check(timed)
    assert (await check_invoices(timed.sql)).findings == []


async def test_a_plan_that_ends_with_the_period_is_not_in_force_after_it(timed: Service) -> None:
    finance = timed.token("finance")
    usage = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}
    body = {"user_id": "ada", "plan_tier": "professional"}
    _, said, _ = await timed.post("/subscriptions", body, headers=finance)
    end = datetime.fromisoformat(said["current_period"]["end"])
    assert (await timed.post("/usage", usage))[1]["quota_remaining"] == 99_999
    change = {"plan_tier": "basic", "when": "period_end"}
    await timed.post("/subscription/ada/change", change, headers=finance)
    await advance(timed, end - timedelta(seconds=5))
    assert (await timed.post("/usage", usage))[1]["quota_remaining"] == 99_998
    await advance(timed, end)
    assert (await timed.post("/usage", usage))[1]["quota_remaining"] == 9_999
    _, said, _ = await timed.get("/subscription/ada", headers=finance)
    assert (said["plan_tier"], said["pending_change"]) == ("basic", None)


async def test_it_never_goes_back(timed: Service) -> None:
    to = datetime.now(UTC) + timedelta(days=3)
    assert (await advance(timed, to))[0] == 200
    assert (await advance(timed, to - timedelta(days=1)))[0] == 409
    assert (await timed.post("/test-clock", {}, headers=timed.token("admin")))[0] == 400
    assert (await advance(timed, to + timedelta(days=1), role="service"))[0] == 403


async def test_without_it_there_is_no_such_route(service: Service) -> None:
    assert (await advance(service, datetime.now(UTC) + timedelta(days=3)))[0] == 404


def test_it_is_never_for_production() -> None:
    environ = {
        "BILLING_ENV": "production", "TEST_CLOCK": "true", "DATABASE_URL": "postgresql://db/x",
        "REDIS_URL": "redis",
    }  # fmt: skip
    with pytest.raises(SettingError, match="TEST_CLOCK"):
        load(environ)
