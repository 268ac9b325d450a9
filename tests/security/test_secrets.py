"""What no log, no answer and no metric may hold."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Service
from tests.security.tokens import claims, encoded


async def test_nothing_secret_or_personal_is_logged_or_answered(
    service: Service, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    token = encoded(service.key, claims(org="*"))
    tampered = token[:-4] + "AAAA"
    key, note = "key-SECRET-1", "PatientName"
    usage = {
        "user_id": "ada",
        "usage_type": "api_calls",
        "quantity": 1,
        "metadata": {"feature": "feature-SECRET"},
        "idempotency_key": key,
    }
    answers = [
        await service.post("/usage", usage, headers={"Authorization": f"Bearer {one}"})
        for one in (token, token, tampered)
    ]
    answers.append(await service.post("/usage", {**usage, "metadata": {"note": note}}))
    answers.append(await service.post("/usage", {**usage, "quantity": 2}))
    answers.append(await service.post("/usage", {**usage, note: note}))
    await service.post("/usage/batch", {"records": [{**usage, "metadata": {note: note}}]})
    assert [status for status, _, _ in answers] == [201, 201, 401, 400, 422, 400]
    await service.drained()
    await service.redis.run("DEL", *await service.redis.run("KEYS", "receipt:*"))
    await service.post("/usage", usage)
    await service.drained()  # a repeat, logged as such
    captured = capsys.readouterr()
    logged = captured.out + captured.err + caplog.text
    assert "usage_recorded" in logged and "usage_repeated" in logged
    said = str([(body, headers) for _, body, headers in answers])
    for secret in (
        token,
        tampered,
        token.split(".")[2],
        note,
        service.key.as_dict(private=True)["d"],
    ):
        assert str(secret) not in logged
        assert str(secret) not in said
    for private in (key, "feature-SECRET"):
        assert private not in logged
    for url in (service.settings.database_url, service.settings.redis_url):
        assert url.split(":")[2].split("@")[0] not in logged + said


async def test_the_financial_line_has_the_fields_of_the_spec(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = {"user_id": "ada", "usage_type": "conversation_minutes", "quantity": 15.5}
    await service.post("/usage", usage)
    capsys.readouterr()
    await service.drained()
    [line] = [
        json.loads(one) for one in capsys.readouterr().out.splitlines() if "usage_recorded" in one
    ]
    assert list(line) == [
        "timestamp",
        "level",
        "service",
        "event",
        "user_id",
        "usage_type",
        "amount",
        "quota_remaining",
    ]
    assert (line["level"], line["service"], line["event"]) == ("info", "billing", "usage_recorded")
    assert (line["amount"], line["quota_remaining"]) == (15.5, 1484.5)
