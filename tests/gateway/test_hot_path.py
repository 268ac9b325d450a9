"""POST /usage on the raw protocol says what every other way in says, however bytes arrive."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.hotpath import Connection
from gateway.usage import Usage
from tests.conftest import BASE, Service
from tests.gateway.corpus import BODIES, RECORDS, record

KINDS = {"content-type", "ratelimit", "ratelimit-policy", "retry-after", "www-authenticate"}
Answer = tuple[int, dict[str, str], bytes]


def request(
    body: bytes, path: str = f"{BASE}/usage", method: str = "POST", **headers: str
) -> bytes:
    lines = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
    }
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


class Client:
    """One connection, bytes as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    @classmethod
    async def of(cls, service: Service) -> Client:
        parts = urlsplit(service.url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def answer(self) -> Answer:
        async with asyncio.timeout(10):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = (line.partition(": ") for line in head[1:] if line)
            headers = {name.lower(): value for name, _, value in pairs}
            body = await self._reader.readexactly(int(headers["content-length"]))
            return int(head[0].split()[1]), headers, body

    async def ask(self, sent: bytes) -> Answer:
        self.writer.write(sent)
        return await self.answer()


def usage(user: str, **more: Any) -> bytes:
    return json.dumps({"user_id": user, "usage_type": "api_calls", "quantity": 1, **more}).encode()


async def used(service: Service, user: str) -> int:
    _, quota, _ = await service.get(f"/quota/{user}")
    [calls] = [one for one in quota["quotas"] if one["usage_type"] == "api_calls"]
    return int(calls["used"])


def alike(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """An answer without what differs from one record to the next."""
    status, headers, body = answer
    kept = {name: headers[name] for name in KINDS & set(headers)}
    if "retry-after" in kept or "ratelimit" in kept:
        kept["ratelimit"] = re.sub("t=.*", "", kept.get("ratelimit", ""))
        kept["retry-after"] = "?" if "retry-after" in kept else ""
    kept["content-type"] = kept["content-type"].partition(";")[0]
    body = re.sub(rb'"(usage_id|recorded_at)":"[^"]*"', b"", body)
    return status, kept, body


@pytest.mark.parametrize("body", (RECORDS | BODIES).values(), ids=(RECORDS | BODIES).keys())
async def test_both_ways_refuse_in_the_same_words(shared: Service, body: bytes) -> None:
    hot, slow = await Client.of(shared), await Client.of(shared)
    one = await hot.ask(request(body))
    other = await slow.ask(request(body, f"{BASE}/usage?"))
    assert alike(one) == alike(other)
    assert 400 <= one[0] < 500
    for client in (hot, slow):
        client.writer.close()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Idempotency_Key": "k"},
        {"Idempotency_Key": '"k"'},
        {"Idempotency_Key": ""},
        {"Idempotency_Key": "x" * 256},
        {"Idempotency_Key": "\u00fc"},
        {"Idempotency_Key": "k "},
        {"Idempotency_Key": '"k"\t '},
        {"Authorization": "Bearer x"},
        {"Authorization": ""},
        {"Authorization": "Basic eA=="},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/json; charset=utf-8"},
        {"Content_Type": "Application/JSON"},
        {"Content_Encoding": "gzip"},
        {"Content_Encoding": "identity"},
        {"X_Anything": "y" * 4000},
    ],
    ids=str,
)
async def test_both_ways_read_headers_alike(shared: Service, headers: dict[str, str]) -> None:
    answers = []
    for way, path in (("hot", f"{BASE}/usage"), ("slow", f"{BASE}/usage?")):
        client = await Client.of(shared)
        user = f"{way}-{list(headers.values())}"[:60]
        body = usage(user)
        answers.append([alike(await client.ask(request(body, path, **headers))) for _ in "12"])
        client.writer.close()
    assert answers[0] == answers[1]


async def test_a_length_of_thousands_of_digits_is_answered(shared: Service) -> None:
    """Python refuses to make a number of it, by an error that would end the connection."""
    client = await Client.of(shared)
    status, _, _ = await client.ask(request(usage("ada"), Content_Length="0" * 5000 + "99"))
    assert status == 400
    client.writer.close()


async def test_both_ways_share_keys_and_counters(shared: Service) -> None:
    client = await Client.of(shared)
    first = await client.ask(request(usage("both"), Idempotency_Key="k"))
    again = await client.ask(request(usage("both"), f"{BASE}/usage?", Idempotency_Key="k"))
    assert (again[0], again[2], again[1]["idempotent-replayed"]) == (201, first[2], "true")
    client.writer.close()


async def test_a_request_may_arrive_byte_by_byte(shared: Service) -> None:
    client = await Client.of(shared)
    for one in request(usage("slow")):
        client.writer.write(bytes([one]))
        await client.writer.drain()
        await asyncio.sleep(0)
    assert (await client.answer())[0] == 201
    client.writer.close()


@pytest.mark.parametrize("cut", range(1, 240, 17))
async def test_a_request_may_arrive_in_two_pieces(shared: Service, cut: int) -> None:
    client = await Client.of(shared)
    sent = request(usage("pieces")) * 2
    client.writer.write(sent[:cut])
    await client.writer.drain()
    await asyncio.sleep(0)
    client.writer.write(sent[cut:])
    assert [(await client.answer())[0] for _ in range(2)] == [201, 201]
    client.writer.close()


async def test_pipelined_requests_are_answered_in_order(shared: Service) -> None:
    client = await Client.of(shared)
    users = [f"user-{n}" for n in range(300)]
    client.writer.write(b"".join(request(usage(user, idempotency_key="k")) for user in users))
    ids = [json.loads((await client.answer())[2])["usage_id"] for _ in users]
    for user, usage_id in zip(users[::50], ids[::50], strict=True):
        _, said, _ = await shared.post("/usage", json.loads(usage(user, idempotency_key="k")))
        assert said["usage_id"] == usage_id
    client.writer.close()


async def test_many_pipelined_refusals_are_answered(shared: Service) -> None:
    client = await Client.of(shared)
    client.writer.write(request(usage("ada"), Authorization="Bearer x") * 2000)
    for _ in range(2000):
        assert (await client.answer())[0] in (401, 429)
    client.writer.close()


async def test_a_client_that_reads_late_is_waited_for_and_gets_every_answer(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that nobody reads must not pile up here without bound."""
    clogged = asyncio.Event()
    real = Connection.pause_writing

    def paused(connection: Connection) -> None:
        clogged.set()
        real(connection)

    monkeypatch.setattr(Connection, "pause_writing", paused)
    client = await Client.of(shared)
    client.writer.write(request(usage("ada"), Authorization="Bearer x") * 30_000)
    await asyncio.wait_for(clogged.wait(), 20)
    for _ in range(30_000):
        assert (await client.answer())[0] in (401, 429)
    client.writer.close()


async def test_a_request_waits_for_the_one_before_it_on_its_connection(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first asks the ledger, which takes its time; the second could be answered at once."""
    await shared.post("/usage", json.loads(usage("warm", idempotency_key="k")))
    entered, gate, real = asyncio.Event(), asyncio.Event(), Usage.record

    async def slow(*args: Any) -> Any:
        entered.set()
        await gate.wait()
        return await real(*args)

    monkeypatch.setattr(Usage, "record", slow)
    client, other = await Client.of(shared), await Client.of(shared)
    client.writer.write(request(usage("cold-and-slow")))
    await entered.wait()
    client.writer.write(request(usage("warm", idempotency_key="k")))
    for _ in range(3):
        assert (await other.ask(request(usage("warm"))))[0] == 201
    gate.set()
    first, second = await client.answer(), await client.answer()
    assert ("idempotent-replayed" in first[1], "idempotent-replayed" in second[1]) == (False, True)
    for one in (client, other):
        one.writer.close()


async def test_one_connection_serves_every_route(shared: Service) -> None:
    client = await Client.of(shared)
    for _ in range(2):
        assert (await client.ask(request(usage("mixed"))))[0] == 201
        assert (await client.ask(request(b"", f"{BASE}/quota/mixed", "GET")))[0] == 200
        assert (await client.ask(request(usage("mixed"), f"{BASE}/quota/check")))[0] == 200
    client.writer.write(request(usage("mixed")) + request(b"", f"{BASE}/quota/mixed", "GET"))
    assert [(await client.answer())[0] for _ in range(2)] == [201, 200]
    client.writer.close()


async def test_a_request_cut_off_in_its_body_has_no_effect(shared: Service) -> None:
    client = await Client.of(shared)
    client.writer.write(request(usage("cut"))[:-3])
    await client.writer.drain()
    client.writer.close()
    await client.writer.wait_closed()
    assert await used(shared, "cut") == 0


async def test_a_body_longer_than_said_is_the_next_request(shared: Service) -> None:
    client = await Client.of(shared)
    assert (await client.ask(request(record()) + b"x\r\n\r\n"))[0] == 201
    assert (await client.answer())[0] == 400
    client.writer.close()


@pytest.mark.parametrize("method", ["event", "answer", "submit", "record"])
async def test_an_unexpected_error_is_answered_and_the_service_goes_on(
    shared: Service, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("unexpected")

    user = f"breaks-{method}"
    if method in ("submit", "answer"):  # the short way is for what is known already
        await shared.post("/usage", json.loads(usage(user)))
    client = await Client.of(shared)
    with monkeypatch.context() as patch:
        patch.setattr(Usage, method, broken)
        status, headers, body = await client.ask(request(usage(user)))
        assert (status, headers["content-type"]) == (500, "application/problem+json")
        assert json.loads(body)["type"] == "urn:billing:problem:internal"
        assert b"unexpected" not in body.replace(b"an unexpected error", b"")
    client.writer.close()
    client = await Client.of(shared)
    assert (await client.ask(request(usage(user))))[0] == 201
    client.writer.close()
