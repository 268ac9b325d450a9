"""A proxy in front of the real service that breaks down on demand."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from aiohttp import ClientSession, TCPConnector, web
from aiohttp.test_utils import TestServer

Forward = Callable[[], Awaitable[web.Response]]
Fault = Callable[[web.Request, Forward], Awaitable[web.StreamResponse]]

CLOSING = web.AppKey("CLOSING", asyncio.Event)
_KEPT = ("Content-Type", "Retry-After", "Idempotent-Replayed")


@dataclass
class Seen:
    """A request that reached the proxy."""

    path: str
    body: bytes
    authorization: str | None

    @property
    def json(self) -> Any:
        return json.loads(self.body, parse_float=Decimal)

    @property
    def records(self) -> list[dict[str, Any]]:
        said = self.json
        found: list[dict[str, Any]] = said.get("records", [said])
        return found


class FaultProxy:
    """Each request meets the next of `faults` (None, or none left: forwarded untouched)."""

    def __init__(self, target: str) -> None:
        self.faults: list[Fault | None] = []
        self.choose: Callable[[], Fault | None] = lambda: None
        self.seen: list[Seen] = []
        self.arrived = asyncio.Event()
        self._target = target
        self._session = ClientSession(connector=TCPConnector(limit=0))
        app = web.Application(client_max_size=16 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        app[CLOSING] = self._closing = asyncio.Event()
        self._server = TestServer(app)

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    async def start(self) -> None:
        await self._server.start_server()

    async def close(self) -> None:
        self._closing.set()
        await self._server.close()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        token = request.headers.get("Authorization")
        self.seen.append(Seen(request.path, body, token))
        self.arrived.set()

        async def forward() -> web.Response:
            headers = {
                name: request.headers[name]
                for name in ("Authorization", "Content-Type")
                if name in request.headers
            }
            async with self._session.request(
                request.method, f"{self._target}{request.path_qs}", data=body, headers=headers
            ) as answer:
                kept = {name: answer.headers[name] for name in _KEPT if name in answer.headers}
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)

        fault = self.faults.pop(0) if self.faults else self.choose()
        return await forward() if fault is None else await fault(request, forward)


def answering(status: int, document: Any = None, **headers: str) -> Fault:
    """An answer without an effect; `document` is the JSON body."""

    async def fault(request: web.Request, forward: Forward) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(document or {}, status=status, headers=named)

    return fault


def holding(release: asyncio.Event) -> Fault:
    """The effect happens; the answer comes when released."""

    async def fault(request: web.Request, forward: Forward) -> web.Response:
        answer = await forward()
        await release.wait()
        return answer

    return fault


async def losing_the_request(request: web.Request, forward: Forward) -> web.Response:
    """The connection is reset before the effect."""
    return _reset(request)


async def losing_the_answer(request: web.Request, forward: Forward) -> web.Response:
    """The connection is reset after the effect."""
    await forward()
    return _reset(request)


async def cutting_the_answer(request: web.Request, forward: Forward) -> web.StreamResponse:
    """The connection ends within the body of the answer."""
    answer = await forward()
    assert isinstance(answer.body, bytes)
    cut = web.StreamResponse(status=answer.status)
    cut.content_length = len(answer.body)
    await cut.prepare(request)
    await cut.write(answer.body[:-5])
    assert request.transport is not None
    request.transport.close()
    return cut


async def garbling_the_answer(request: web.Request, forward: Forward) -> web.Response:
    """Something else than the service answers that all is well."""
    answer = await forward()
    return web.Response(status=answer.status, text="<html>")


async def answering_too_late(request: web.Request, forward: Forward) -> web.Response:
    """The effect happens; the answer comes when nobody waits for it any more."""
    answer = await forward()
    await request.app[CLOSING].wait()
    return answer


def _reset(request: web.Request) -> web.Response:
    assert request.transport is not None
    stream = request.transport.get_extra_info("socket")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()
