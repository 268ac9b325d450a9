"""A whole gateway with an auth service: on the raw protocol and behind aiohttp."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.auth import throttle
from gateway.hotpath import Connection
from ledger.settings import Settings
from tests.auth_fake.server import CLIENT_SECRET, FakeAuth, claims, ec
from tests.conftest import Service, Services
from tests.gateway.test_hot_path import Client, request
from tests.security.tokens import REMOVED, bearer

GOOD, BAD = "opaque-CANARY-good", "opaque-CANARY-bad"
USAGE = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}


@pytest.fixture
async def service(services: Services, settings: Settings, auth: FakeAuth) -> Service:
    auth.active[GOOD] = claims()
    asked = auth.settings("keys", "introspection", "userinfo")
    return await services.start(msgspec.structs.replace(settings, auth=asked))


async def record(service: Service, token: str) -> tuple[int, Any, dict[str, str]]:
    return await service.post("/usage", USAGE, headers=bearer(token))


async def test_usage_is_recorded_with_a_token_that_has_to_be_asked_about(
    service: Service, auth: FakeAuth
) -> None:
    signed = auth.granted()
    for token in (GOOD, signed, GOOD, signed):
        assert (await record(service, token))[0] == 201
    assert auth.asked["introspection"] == 2
    assert (await record(service, BAD))[0] == 401
    assert (await service.post("/usage", USAGE))[0] == 201  # dev is as it was
    assert (await service.get("/quota/ada", headers=service.token("admin")))[0] == 200
    assert auth.asked["introspection"] == 3


async def test_a_key_that_is_new_is_found_on_the_raw_protocol(
    service: Service, auth: FakeAuth
) -> None:
    assert (await record(service, auth.granted()))[0] == 201
    auth.keys.append(ec("two"))
    token = auth.signed(auth.keys[1])
    auth.active[token] = claims()
    assert (await record(service, token))[0] == 201


async def test_the_raw_protocol_asks_about_a_token_itself(
    service: Service, auth: FakeAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "_hand_over", lambda _: pytest.fail("it went to aiohttp"))
    client = await Client.of(service)
    for token, status in ((GOOD, 201), (BAD, 401), (GOOD, 201)):
        sent = request(msgspec.json.encode(USAGE), Authorization=f"Bearer {token}")
        assert (await client.ask(sent))[0] == status
    auth.fault = "down"
    sent = request(msgspec.json.encode(USAGE), Authorization="Bearer another")
    assert (await client.ask(sent))[0] == 503
    client.writer.close()


@pytest.mark.parametrize("path", ["/usage", "/plans"])
async def test_bad_tokens_are_held_up_on_every_way_and_known_callers_are_not(
    service: Service, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(throttle, "BAD_TOKENS", 3)
    assert (await record(service, GOOD))[0] == 201

    async def ask(token: str) -> tuple[int, Any, dict[str, str]]:
        if path == "/usage":
            return await record(service, token)
        return await service.get(path, headers=bearer(token))

    answers = [await ask(f"bad{number}") for number in range(5)]
    assert [status for status, _, _ in answers] == [401, 401, 401, 429, 429]
    assert answers[-1][1]["type"] == "urn:billing:problem:rate-limited"
    assert int(answers[-1][2]["Retry-After"]) == answers[-1][1]["retry_after"] >= 1
    assert (await record(service, GOOD))[0] == 201


async def test_no_token_and_no_secret_is_in_a_log_an_answer_or_a_metric(
    service: Service,
    auth: FakeAuth,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    signed = auth.granted(sub="user-CANARY", roles=["user"], org=REMOVED)
    secrets = [GOOD, BAD, signed, signed.split(".")[2], f"{signed}AAAA", CLIENT_SECRET]
    said: list[Any] = [await record(service, token) for token in (GOOD, BAD, signed, f"{signed}AA")]
    for fault in ("down", "garbage", "huge", "redirect", "error", "refuses us"):
        auth.fault = fault
        said += [await record(service, f"{BAD}-{fault}"), await record(service, f"{signed}AA")]
    auth.fault = None
    auth.published = {"keys": [{"kid": "key-CANARY", "kty": "oct", "k": "key-CANARY"}]}
    said.append(await record(service, auth.signed(ec("key-CANARY-2"))))
    said.append(await record(service, f"{BAD}-{'x' * 9000}"))
    async with service.http.get(f"{service.url}/metrics") as response:
        said.append(await response.text())
    logged = capsys.readouterr()
    everything = str(said) + logged.out + logged.err + caplog.text + repr(service.settings)
    assert "auth_service_failed" in everything
    assert "auth_key_not_used" in everything
    assert "billing_auth_service_answers_total" in everything
    assert [one for one in [*secrets, "CANARY"] if one in everything] == []
