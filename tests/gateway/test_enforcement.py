"""QUOTA_ENFORCEMENT=false: everything is counted and recorded, nothing is refused."""

from __future__ import annotations

import msgspec

from ledger.settings import Settings
from tests.conftest import Services
from tests.gateway.test_limits import usage
from tests.ledger.plans import allows, on_plan


async def test_without_enforcement_everything_counts_and_nothing_refuses(
    services: Services, settings: Settings
) -> None:
    service = await services.start(msgspec.structs.replace(settings, quota_enforcement=False))
    await on_plan(service.sql, "free", allows("api_calls", "5", rate=(1, 3600)))
    for quantity, remaining, exceeded in [(5, 0, False), (2, 0, True)]:
        status, said, _ = await service.post("/usage", usage("free", quantity))
        assert (status, said["quota_remaining"], said["quota_exceeded"]) == (
            201,
            remaining,
            exceeded,
        )
    other = usage("free") | {"usage_type": "ai_tokens"}
    assert (await service.post("/usage", other))[1]["quota_exceeded"] is True
    check = {"user_id": "free", "usage_type": "api_calls", "quantity": 100}
    assert (await service.post("/quota/check", check))[1]["allowed"] is True
    assert await service.drained() == 3
    assert await service.sql.fetchval("SELECT bool_or(enforced) FROM usage_records") is False
