"""The naive peer: aiohttp, one EVALSHA per request through redis-py's pool.

``python -m bench.peers.naive``, with PORT, REDIS_URL and RECORD_SHA in the environment.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
import uvloop
from aiohttp import web
from redis.asyncio import BlockingConnectionPool, Redis

_CONNECTIONS = 64
_DENIED, _REPLAYED = 2, 1


def make_app(redis: Redis, sha: str) -> web.Application:
    async def record(request: web.Request) -> web.Response:
        key = request.headers.get("Idempotency-Key")
        try:
            body: dict[str, Any] = msgspec.json.decode(await request.read())
            user, organization = body["user_id"], body["organization_id"]
            usage_type, quantity = body["usage_type"], body["quantity"]
        except (msgspec.DecodeError, KeyError, TypeError):
            return _answer(400, {"error": "invalid"})
        reply: Any = await redis.execute_command(  # type: ignore[no-untyped-call]
            "EVALSHA",
            sha,
            4,
            "usage",
            "receipt:",
            f"quota:{user}",
            f"quota:{organization}",
            f"{user}:{key}",
            f"{organization}:{user}",
            usage_type,
            quantity,
            key,
        )
        outcome, remaining, at = reply
        if outcome == _DENIED:
            return _answer(429, {"quota_exceeded": True})
        headers = {"Idempotent-Replayed": "true"} if outcome == _REPLAYED else {}
        said = {"usage_id": key, "recorded_at": at, "quota_remaining": remaining}
        return _answer(201, said, headers)

    app = web.Application()
    app.router.add_post("/api/v1/billing/usage", record)
    return app


def _answer(status: int, said: object, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(said),
        status=status,
        headers=headers,
        content_type="application/json",
    )


async def _serve(url: str, sha: str, port: int) -> None:
    pool = BlockingConnectionPool.from_url(url, max_connections=_CONNECTIONS, protocol=2)
    app = make_app(Redis.from_pool(pool), sha)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(os.environ["REDIS_URL"], os.environ["RECORD_SHA"], int(os.environ["PORT"])))
