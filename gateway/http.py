"""What every handler does with a request and an answer."""

from __future__ import annotations

import asyncio

from aiohttp import web

from gateway.auth import Principal
from gateway.problems import Kind, Problem

MAX_BODY = 2 * 1024 * 1024  # a batch of 1000 records of 2 KB
CALLER = web.RequestKey("caller", Principal)  # set as soon as it is known who asks
BODY_S = 10  # to send a body; a slower client holds memory, not just a socket


def caller(request: web.Request) -> Principal:
    """Who asks, and may do what the route is for: `gateway.app` has seen to that."""
    return request[CALLER]


async def body_of(request: web.Request, most: int = MAX_BODY) -> bytes:
    """The JSON body, of at most so many bytes, within its time."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(Kind.UNSUPPORTED_MEDIA, "compressed bodies are not accepted")
    if request.content_type != "application/json":
        raise Problem(Kind.UNSUPPORTED_MEDIA, "Content-Type must be application/json")
    too_large = Problem(Kind.TOO_LARGE, f"a body has at most {most} bytes")
    if (request.content_length or 0) > most:
        raise too_large
    try:
        async with asyncio.timeout(BODY_S):
            body = await request.read()
    except TimeoutError:
        raise Problem(Kind.TIMEOUT, f"the body took longer than {BODY_S} seconds") from None
    if len(body) > most:  # one in chunks does not say before
        raise too_large
    return body


def json_answer(
    body: bytes, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
