"""Whatever is wrong with a request: a 4xx problem that repeats nothing, and no trace of it."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import msgspec
import pytest

from gateway.accounts import Accounts
from gateway.problems import Kind, Problem
from ledger import db
from tests.conftest import BASE, Service
from tests.gateway.corpus import BODIES, MARK, RECORDS, record

JSON = {"Content-Type": "application/json"}
ROUTES = ("/usage", "/usage/batch", "/quota/check")


@pytest.fixture
async def untouched(shared: Service, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Service]:
    """The service; afterwards Redis and the ledger hold what they held, and no log the mark."""
    before = await _everything(shared)
    yield shared
    assert await _everything(shared) == before
    logged = capsys.readouterr()
    assert MARK not in logged.out + logged.err
    assert "internal_error" not in logged.out


async def _everything(service: Service) -> dict[bytes, object]:
    names = await service.redis.run("KEYS", "*")
    found = {name: await service.redis.run("DUMP", name) for name in names}
    found[b"rows"] = await service.sql.fetchval("SELECT COUNT(*) FROM usage_keys")
    found[b"dead"] = await service.sql.fetchval("SELECT COUNT(*) FROM dead_letters")
    return found


async def refuse(
    service: Service, path: str, body: bytes, headers: dict[str, str] | None = None
) -> int:
    """Sends a body that must be refused; the status (of its only record, for a batch)."""
    async with service.http.post(
        f"{service.url}{BASE}{path}", data=body, headers=JSON if headers is None else headers
    ) as response:
        text = await response.text()
        said = msgspec.json.decode(text)
        assert MARK not in text
        if path == "/usage/batch" and response.status == 200:
            assert (said["accepted"], said["rejected"]) == (0, 1)
            [said] = said["results"]
        else:
            assert response.content_type == "application/problem+json"
            assert said["instance"] == BASE + path
            assert said["status"] == response.status
    assert said["type"].startswith("urn:billing:problem:")
    assert said["title"] and said["detail"]
    assert 400 <= said["status"] < 500, said
    return int(said["status"])


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("body", RECORDS.values(), ids=RECORDS.keys())
async def test_a_wrong_record_is_refused(untouched: Service, path: str, body: bytes) -> None:
    if path == "/usage/batch":
        body = b'{"records": [' + body + b"]}"
    assert await refuse(untouched, path, body) == 400


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_wrong_body_is_refused(untouched: Service, path: str, body: bytes) -> None:
    assert await refuse(untouched, path, body) == 400
    if path == "/usage/batch":
        assert await refuse(untouched, path, b'{"records": [' + body + b"]}") == 400


@pytest.mark.parametrize(
    "body",
    [
        b'{"records": 5}',
        b'{"records": null}',
        b'{"records": {}}',
        b'{"records": [], "sEcReT": 1}',
        b"{}",
        b'{"records": [' + record() + b'], "records": []}',
        b'{"records": [], "records" : [' + record() + b"]}",
        rb'{"records": [], "\u0072ecords": [' + record() + b"]}",
        b'{"records": [' + b",".join([record()] * 1001) + b"]}",
    ],
    ids=lambda body: str(body[:28]),
)
async def test_a_wrong_batch_is_refused_whole(untouched: Service, body: bytes) -> None:
    assert await refuse(untouched, "/usage/batch", body) == 400


@pytest.mark.parametrize("path", ROUTES)
async def test_a_body_of_ten_megabytes_is_too_large(untouched: Service, path: str) -> None:
    assert await refuse(untouched, path, b" " * 10_000_000) == 413


@pytest.mark.parametrize("path", ROUTES)
async def test_a_large_body_of_unknown_length_is_too_large(untouched: Service, path: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 500_000

    async with untouched.http.post(
        f"{untouched.url}{BASE}{path}", data=chunks(), headers=JSON
    ) as response:
        assert response.status == 413
        assert response.content_type == "application/problem+json"


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "zstd", "gzip, gzip"])
async def test_a_compressed_body_is_refused_unread(
    untouched: Service, path: str, encoding: str
) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    headers = {**JSON, "Content-Encoding": encoding}
    assert await refuse(untouched, path, bomb, headers) == 415
    assert await refuse(untouched, path, gzip.compress(record()), headers) == 415


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": ""},
        {"Content-Type": "sEcReT"},
    ],
    ids=str,
)
async def test_another_content_type_is_refused(
    untouched: Service, path: str, headers: dict[str, str]
) -> None:
    assert await refuse(untouched, path, record(), headers) == 415


@pytest.mark.parametrize("path", ROUTES)
async def test_a_missing_content_type_is_refused(untouched: Service, path: str) -> None:
    async with untouched.http.post(
        f"{untouched.url}{BASE}{path}", data=record(), skip_auto_headers=["Content-Type"]
    ) as response:
        assert (response.status, response.content_type) == (415, "application/problem+json")


@pytest.mark.parametrize("value", ["application/json; charset=utf-8", "APPLICATION/JSON"])
async def test_the_usual_spellings_of_the_content_type_are_taken(
    shared: Service, value: str
) -> None:
    async with shared.http.post(
        f"{shared.url}{BASE}/quota/check", data=record(), headers={"Content-Type": value}
    ) as response:
        assert response.status == 200


async def test_escaped_quotes_in_a_value_are_not_taken_for_fields(shared: Service) -> None:
    tricky = record(idempotency_key=r'"\",\"quantity\":5,\"quantity\" : 6,\\"')
    async with shared.http.post(f"{shared.url}{BASE}/usage", data=tricky, headers=JSON) as response:
        assert response.status == 201


@pytest.mark.parametrize(
    "text", ["test-user", "", "123e4567-e89b-12d3-a456-42661417400", "\ud800", "\x00", MARK * 100]
)
async def test_only_uuids_are_taken_where_names_are_not_readable(
    shared: Service, text: str
) -> None:
    async with db.pool(shared.settings.database_url, 1) as pool:
        accounts = Accounts(pool, readable_names=False)
    for optional in (False, True):
        with pytest.raises(Problem) as caught:
            if optional:
                accounts.optional(text, Kind.INVALID_USAGE)
            else:
                accounts.identify(text, "user_id")
        assert caught.value.kind.status == 400
        assert MARK not in caught.value.detail
    good = "123e4567-e89b-12d3-a456-426614174000"
    assert str(accounts.identify(good, "user_id")) == good
