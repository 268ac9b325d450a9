"""A stand-in of the batch endpoint that keeps its promises and breaks down on demand."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.replay.send import Timer

Body = dict[str, Any]
Effect = Callable[[], web.Response]
Fault = Callable[[web.Request, Effect], Awaitable[web.Response]]

CLOSING = web.AppKey("CLOSING", asyncio.Event)


class StandIn:
    """Counts a key once; ``faults`` meet one request each, ``decide`` may refuse a record."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], Body] = {}
        self.requests: list[list[Body]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: list[Fault | None] = []
        self.decide: Callable[[Body], Body | None] = lambda record: None
        self.url = ""

    def sums(self) -> dict[str, Decimal]:
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for record in self.stored.values():
            sums[record["usage_type"]] += record["quantity"]
        return dict(sums)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Self]:
        app = web.Application(client_max_size=16 << 20)
        app.router.add_post("/api/v1/billing/usage/batch", self._batch)
        app[CLOSING] = asyncio.Event()
        async with TestServer(app) as server:
            self.url = str(server.make_url("")).rstrip("/")
            try:
                yield self
            finally:
                app[CLOSING].set()

    async def _batch(self, request: web.Request) -> web.Response:
        records = json.loads(await request.read(), parse_float=Decimal, parse_int=Decimal)
        self.requests.append(records["records"])
        self.headers.append(dict(request.headers))
        assert 0 < len(self.requests[-1]) <= 1000

        def effect(batch: list[Body] = self.requests[-1]) -> web.Response:
            return web.json_response({"results": [self._record(record) for record in batch]})

        fault = self.faults.pop(0) if self.faults else None
        return effect() if fault is None else await fault(request, effect)

    def _record(self, record: Body) -> Body:
        if (refusal := self.decide(record)) is not None:
            return refusal
        first = self.stored.setdefault((record["user_id"], record["idempotency_key"]), record)
        if first is record:
            return {"status": 201, "usage_id": "x", "quota_remaining": None}
        if first != record:
            return {"status": 422, "title": "The key was used for another body"}
        return {"status": 201, "replayed": True, "usage_id": "x"}


def answering(status: int, **headers: str) -> Fault:
    """A whole-request problem without an effect."""

    async def fault(request: web.Request, effect: Effect) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response({"title": "No", "detail": "not now"}, status=status, headers=named)

    return fault


async def losing_the_answer(request: web.Request, effect: Effect) -> web.Response:
    """The connection drops after the effect."""
    answer = effect()
    assert request.transport is not None
    request.transport.abort()
    return answer


async def losing_the_request(request: web.Request, effect: Effect) -> web.Response:
    """The connection drops before the effect."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def garbling_the_answer(request: web.Request, effect: Effect) -> web.Response:
    effect()
    return web.Response(text="<html>")


async def answering_for_too_few(request: web.Request, effect: Effect) -> web.Response:
    effect()
    return web.json_response({"results": [{"status": 400}]})


async def answering_too_late(request: web.Request, effect: Effect) -> web.Response:
    """The effect happens; the answer only comes when nobody waits for it any more."""
    answer = effect()
    await request.app[CLOSING].wait()
    return answer


class FakeTimer(Timer):
    """Time that passes only while somebody waits for it."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            self.pauses.append(seconds)
            self.time += seconds

        super().__init__(now=lambda: self.time, sleep=sleep, chance=lambda: 1.0)
