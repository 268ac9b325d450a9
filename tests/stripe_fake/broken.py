"""Answers that do not arrive as they were given."""

from __future__ import annotations

import asyncio
import json
import socket
import struct

from aiohttp import web

from tests.stripe_fake.idempotency import Answer

BYTE_S = 0.01  # an answer of hundreds of bytes takes longer than a hasty caller waits


def reset(request: web.Request) -> web.Response:
    """The connection is gone, with what was on its way."""
    assert request.transport is not None
    stream = request.transport.get_extra_info("socket")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()


def page(status: int) -> web.Response:
    return web.Response(status=status, text="<html>Maintenance</html>", content_type="text/html")


async def cut(request: web.Request, answer: Answer) -> web.StreamResponse:
    """Half of it, of what was said to be whole; then the connection ends."""
    response, body = await _begun(request, answer)
    await response.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.close()
    return response


async def trickle(
    request: web.Request, answer: Answer, closing: asyncio.Event
) -> web.StreamResponse:
    """Something comes all the time, and it is never done."""
    response, body = await _begun(request, answer)
    for byte in body[:-1]:
        if request.transport is None or closing.is_set():
            break
        await response.write(bytes([byte]))
        await asyncio.sleep(BYTE_S)
    await closing.wait()
    return response


async def _begun(request: web.Request, answer: Answer) -> tuple[web.StreamResponse, bytes]:
    body = json.dumps(answer.body).encode()
    response = web.StreamResponse(status=answer.status)
    response.content_type = "application/json"
    response.content_length = len(body)
    await response.prepare(request)
    return response, body
