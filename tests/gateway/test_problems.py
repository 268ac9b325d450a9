"""Every error is a problem document: unknown paths and methods, HEAD, and broken HTTP."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import urlsplit

import pytest

from gateway.problems import Kind
from gateway.routes import ROUTES
from tests.conftest import BASE, Service

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def _filled(path: str) -> str:
    return re.sub(r"{\w+}", "ada", path)


ALLOWED: dict[str, set[str]] = {}
for _route in (one for one in ROUTES if not one.test_only):
    ALLOWED.setdefault(_filled(_route.path), set()).add(_route.method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "path",
    ["/", "/api/v1/billing", f"{BASE}/usage/", f"{BASE}/sEcReT", f"{BASE}/quota/a/b", "/livez/x"],
)
async def test_an_unknown_path_is_not_found(shared: Service, path: str, method: str) -> None:
    async with shared.http.request(method, f"{shared.url}{path}") as response:
        assert (response.status, response.content_type) == (404, "application/problem+json")
        if method == "HEAD":
            assert await response.read() == b""
        else:
            said = await response.json(content_type=None)
            assert (said["type"], said["status"]) == ("urn:billing:problem:not-found", 404)
            assert (said["title"], said["instance"]) == ("Not found", path)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", sorted(ALLOWED))
async def test_another_method_is_refused_with_those_allowed(
    shared: Service, path: str, method: str
) -> None:
    if method in ALLOWED[path] or (method == "HEAD" and "GET" in ALLOWED[path]):
        return
    async with shared.http.request(method, f"{shared.url}{path}") as response:
        assert (response.status, response.content_type) == (405, "application/problem+json")
        allowed = {one.strip() for one in response.headers["Allow"].split(",")}
        assert allowed - {"HEAD"} == ALLOWED[path]
        if method != "HEAD":
            said = await response.json(content_type=None)
            assert said["type"] == "urn:billing:problem:method-not-allowed"


@pytest.mark.parametrize("path", sorted(path for path in ALLOWED if "GET" in ALLOWED[path]))
async def test_head_has_no_body(shared: Service, path: str) -> None:
    async with shared.http.head(f"{shared.url}{path}?user_id=ada") as response:
        assert response.status in (200, 401, 405)
        assert await response.read() == b""
        assert response.status != 405 or "GET" in response.headers["Allow"]


@pytest.mark.parametrize(
    "path",
    [
        f"{BASE}/quota/%00",
        f"{BASE}/quota/%ED%A0%80",
        f"{BASE}/quota/%FF",
        f"{BASE}/quota/%2F..%2F",
        f"{BASE}/quota/{'x' * 5000}",
        f"{BASE}/subscription/%00",
    ],
)
async def test_an_extreme_user_id_in_a_path_is_no_internal_error(
    shared: Service, path: str
) -> None:
    reader, writer = await _connected(shared)
    token = shared.token("admin")["Authorization"]
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.1\r\nAuthorization: {token}\r\n\r\n".encode())
    assert await _status(reader) in (200, 400, 404)
    writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /api/v1/billing/usage HTTP/1.1\r\nHost: 127.1\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nsEcReT\r\n",
        b"POST /api/v1/billing/usage HTTP/1.1\r\nHost: 127.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"POST /api/v1/billing/usage HTTP/1.1\r\nHost: 127.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: -5\r\n\r\n{}",
        b"GET /" + b"sEcReT" * 2000 + b" HTTP/1.1\r\nHost: 127.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: 127.1\r\nsEcReT\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: 127.1\r\nX: " + b"sEcReT" * 2000 + b"\r\n\r\n",
        b"sEcReT /livez HTTP/1.1\r\nHost: 127.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00sEcReT\r\n\r\n",
    ],
    ids=lambda sent: str(sent[-24:]),
)
async def test_broken_http_is_refused_without_repeating_it(shared: Service, sent: bytes) -> None:
    reader, writer = await _connected(shared)
    writer.write(sent)
    status = await reader.readline()
    rest = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", rest)
    body = await reader.readexactly(int(length[1])) if length else b""
    writer.close()
    assert status.split()[1].startswith(b"4")
    assert b"sEcReT" not in rest + body
    assert b"application/problem+json" in rest


async def test_broken_http_is_not_logged(
    shared: Service, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first line of a broken request may be a token or a name."""
    reader, writer = await _connected(shared)
    writer.write(b"GET /livez HTTP/1.1\r\nAuthorization: " + b"sEcReT" * 2000 + b"\r\n\r\n")
    await reader.readline()
    writer.close()
    assert "sEcReT" not in caplog.text + "".join(capsys.readouterr())


async def test_the_catalogue_of_problems_is_the_contracts() -> None:
    assert {(kind.status, kind.slug) for kind in Kind} >= {
        (400, "invalid-usage"),
        (400, "invalid-request"),
        (400, "phi-rejected"),
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "not-found"),
        (409, "conflict"),
        (408, "timeout"),
        (413, "too-large"),
        (415, "unsupported-media"),
        (422, "idempotency-key-reuse"),
        (429, "quota-exceeded"),
        (429, "rate-limited"),
        (500, "internal"),
        (503, "unavailable"),
    }


async def _connected(shared: Service) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(shared.url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def _status(reader: asyncio.StreamReader) -> int:
    return int((await reader.readline()).split()[1])
