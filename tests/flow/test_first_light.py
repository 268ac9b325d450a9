"""The whole way of one usage event."""

from __future__ import annotations

from tests.conftest import Service


async def test_usage_recorded_over_http_is_in_the_ledger_and_in_the_quota(service: Service) -> None:
    usage = {"user_id": "test-user", "usage_type": "conversation_minutes", "quantity": 15.5}
    status, said, headers = await service.post("/usage", usage)
    assert (status, said["quota_remaining"], said["quota_exceeded"]) == (201, 1484.5, False)
    assert headers["RateLimit"].startswith('"monthly";r=1484;t=')

    assert await service.drained() == 1
    status, listed, _ = await service.get("/usage?user_id=test-user")
    assert [(one["usage_id"], one["quantity"]) for one in listed["data"]] == [
        (said["usage_id"], 15.5)
    ]
    _, quota, _ = await service.get("/quota/test-user")
    [minutes] = [one for one in quota["quotas"] if one["usage_type"] == "conversation_minutes"]
    assert (minutes["used"], minutes["remaining"]) == (15.5, 1484.5)
