"""Batches, checks and quotas on the raw protocol say what they say behind aiohttp."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp.web_protocol import RequestHandler

from gateway.head import MAX_BODY
from tests.conftest import BASE, Service
from tests.gateway.corpus import BODIES, RECORDS
from tests.gateway.test_hot_path import Client, alike, request, usage, used

# What is empty or large the raw protocol hands over.
SERVED = {name: body for name, body in BODIES.items() if 0 < len(body) <= MAX_BODY}
BATCH, CHECK, QUOTA = f"{BASE}/usage/batch", f"{BASE}/quota/check", f"{BASE}/quota"


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[RequestHandler]:
    """The connections that went to aiohttp."""
    found: list[RequestHandler] = []
    real = RequestHandler.connection_made

    def connection_made(self: RequestHandler, transport: asyncio.BaseTransport) -> None:
        found.append(self)
        real(self, transport)

    monkeypatch.setattr(RequestHandler, "connection_made", connection_made)
    return found


@pytest.fixture
async def ways(
    shared: Service, handed_over: list[RequestHandler]
) -> AsyncIterator[tuple[Client, Client]]:
    """A connection that must stay on the raw protocol, and one that goes to aiohttp."""
    hot, slow = await Client.of(shared), await Client.of(shared)
    await slow.ask(request(b"", "/livez", "GET"))
    yield hot, slow
    assert len(handed_over) == 1, "the raw protocol did not serve it"
    for one in (hot, slow):
        one.writer.close()


def get(path: str, **headers: str) -> bytes:
    lines = "".join(
        f"{name}: {value}\r\n" for name, value in ({"Host": "localhost"} | headers).items()
    )
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


async def both(ways: tuple[Client, Client], sent: bytes) -> tuple[Any, Any]:
    hot, slow = ways
    return alike(await hot.ask(sent)), alike(await slow.ask(sent))


@pytest.mark.parametrize("path", [BATCH, CHECK])
@pytest.mark.parametrize("body", SERVED.values(), ids=SERVED.keys())
async def test_both_ways_refuse_bodies_in_the_same_words(
    ways: tuple[Client, Client], path: str, body: bytes
) -> None:
    one, other = await both(ways, request(body, path))
    assert one == other
    assert 400 <= one[0] < 500


async def test_both_ways_answer_every_record_of_a_batch_alike(ways: tuple[Client, Client]) -> None:
    records = [b'{"user_id":"hot","usage_type":"api_calls","quantity":1}', *RECORDS.values()]
    body = b'{"records":[' + b",".join(one for one in records if _is_record(one)) + b"]}"
    one, other = await both(ways, request(body, BATCH, Idempotency_Key="batch"))
    assert one[0] == other[0] == 200
    first, second = json.loads(_tidy(one[2])), json.loads(_tidy(other[2]))
    assert first["accepted"] >= 1 and first["rejected"] > 5
    for result in (*first["results"], *second["results"]):
        result.pop("replayed", None)
    assert first == second


@pytest.mark.parametrize(
    "body",
    [
        usage("checked"),
        usage("checked", quantity=10**9),
        usage("checked", organization_id="clinic"),
        usage("checked", usage_type="unheard_of"),
        usage(""),
    ],
    ids=lambda body: body.decode()[:60],
)
async def test_both_ways_check_alike(ways: tuple[Client, Client], body: bytes) -> None:
    one, other = await both(ways, request(body, CHECK))
    assert one == other
    assert one[0] < 500


@pytest.mark.parametrize(
    "path",
    [
        f"{QUOTA}/seen",
        f"{QUOTA}/seen?organization_id=clinic",
        f"{QUOTA}/00000001-0000-4000-8000-000000000001",
        f"{QUOTA}/{'x' * 200}",
    ],
)
async def test_both_ways_read_quotas_alike(ways: tuple[Client, Client], path: str) -> None:
    one, other = await both(ways, get(path))
    assert one == other
    assert one[0] in (200, 400)


@pytest.mark.parametrize("path", [BATCH, CHECK, f"{QUOTA}/seen"])
@pytest.mark.parametrize("token", ["Bearer x", "", "Basic eA=="])
async def test_both_ways_refuse_callers_alike(
    ways: tuple[Client, Client], path: str, token: str
) -> None:
    sent = (
        get(path, Authorization=token)
        if path.startswith(QUOTA) and path != CHECK
        else request(usage("x"), path, Authorization=token)
    )
    one, other = await both(ways, sent)
    assert one == other
    assert one[0] == 401


@pytest.mark.parametrize(
    "sent",
    [
        get(f"{QUOTA}/seen?"),
        get(f"{QUOTA}/seen?organization_id=a&organization_id=b"),
        get(f"{QUOTA}/seen?limit=1"),
        get(f"{QUOTA}/se%65n"),
        get(f"{QUOTA}/check"),
        get(f"{QUOTA}/"),
        get(f"{QUOTA}/a/b"),
        get(BATCH),
        request(b"{}", f"{QUOTA}/seen", "POST"),
        request(b"{}", f"{QUOTA}/seen", "GET"),
        request(b"", BATCH),
        request(b"", CHECK),
        request(usage("x"), f"{CHECK}/"),
        request(usage("x"), BATCH.upper()),
        get(f"http://localhost{QUOTA}/seen"),
        get(f"{QUOTA}/seen").replace(b"HTTP/1.1", b"HTTP/1.0"),
        get(f"{QUOTA}/seen", Connection="close"),
    ],
    ids=lambda sent: sent.split(b"\r\n")[0].decode() + f" ({len(sent)})",
)
async def test_what_is_unusual_is_answered_behind_as_if_it_had_come_there_first(
    shared: Service, handed_over: list[RequestHandler], sent: bytes
) -> None:
    fresh, behind = await Client.of(shared), await Client.of(shared)
    await behind.ask(request(b"", "/livez", "GET"))
    assert alike(await fresh.ask(sent)) == alike(await behind.ask(sent))
    assert len(handed_over) == 2
    for one in (fresh, behind):
        one.writer.close()


@pytest.mark.parametrize("cut", range(1, 200, 13))
async def test_each_route_may_arrive_in_two_pieces_with_others_behind_it(
    shared: Service, cut: int
) -> None:
    client = await Client.of(shared)
    batch = b'{"records":[' + usage("parts") + b"]}"
    sent = get(f"{QUOTA}/parts") + request(batch, BATCH) + request(usage("parts"), CHECK)
    sent += request(usage("parts"))
    client.writer.write(sent[:cut])
    await client.writer.drain()
    client.writer.write(sent[cut:])
    assert [(await client.answer())[0] for _ in range(4)] == [200, 200, 200, 201]
    client.writer.close()


async def test_a_batch_that_was_cut_off_has_no_effect(shared: Service) -> None:
    client = await Client.of(shared)
    client.writer.write(request(b'{"records":[' + usage("cut-batch") + b"]}", BATCH)[:-2])
    await client.writer.drain()
    client.writer.close()
    await client.writer.wait_closed()
    assert await used(shared, "cut-batch") == 0


def _is_record(raw: bytes) -> bool:
    """Whether it can stand in a batch without making the whole of it bad."""
    try:
        return len(raw) < 4096 and isinstance(msgspec.json.decode(raw), dict)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False


def _tidy(body: bytes) -> bytes:
    """What is left of an answer after its ids and times were taken out is no JSON yet."""
    return body.replace(b",,", b",").replace(b",,", b",").replace(b"{,", b"{").replace(b",}", b"}")
