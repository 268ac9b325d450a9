"""A subscription begins in its organisation's time zone, and stays in it."""

from __future__ import annotations

from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from ledger.domain.ids import dev_uuid
from tests.conftest import Service
from tests.gateway.test_describing_organizations import put

AUCKLAND, KOLKATA = "Pacific/Auckland", "Asia/Kolkata"  # their midnights are never the same


async def begin(service: Service, user: str, **said: Any) -> dict[str, Any]:
    body = {"user_id": user, "plan_tier": "professional", **said}
    status, answer, _ = await service.post("/subscriptions", body, headers=service.token("finance"))
    assert status == 201
    period: dict[str, Any] = answer["current_period"]
    return period


def begins_at_midnight_of(period: dict[str, Any], timezone: str) -> bool:
    start, end = (
        datetime.fromisoformat(period[name]).astimezone(ZoneInfo(timezone))
        for name in ("start", "end")
    )
    return start.time() == end.time() == time()


async def test_it_is_the_requests_else_the_organizations_else_utc(shared: Service) -> None:
    await put(shared, "far", {"name": "Far", "timezone": AUCKLAND})
    pooled = {"scope": "organization", "organization_id": "far"}
    assert begins_at_midnight_of(await begin(shared, "head", **pooled), AUCKLAND)
    assert begins_at_midnight_of(await begin(shared, "ann", organization_id="far"), AUCKLAND)
    said = await begin(shared, "bob", organization_id="far", timezone=KOLKATA)
    assert begins_at_midnight_of(said, KOLKATA)
    assert begins_at_midnight_of(await begin(shared, "cid", organization_id="undescribed"), "UTC")
    assert begins_at_midnight_of(await begin(shared, "dan"), "UTC")


async def test_a_later_change_moves_no_period_that_runs(shared: Service) -> None:
    await put(shared, "moving", {"name": "Moving", "timezone": AUCKLAND})
    before = await begin(shared, "eve", organization_id="moving")
    await put(shared, "moving", {"name": "Moving", "timezone": KOLKATA})
    path = f"/subscription/eve?organization_id={dev_uuid('moving')}"
    _, said, _ = await shared.get(path, headers=shared.token("finance"))
    assert said["current_period"] == before
    assert begins_at_midnight_of(await begin(shared, "fay", organization_id="moving"), KOLKATA)
