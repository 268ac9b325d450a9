"""A small audit service on a real socket, that fails when it is told to."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web


class AuditService:
    """Answers each request with the next of `faults`: a status, or "hold" for no answer at all. A
    status from 300 on takes nothing; "lost" takes the events and does not say so."""

    def __init__(self) -> None:
        self.faults: list[int | str] = []
        self.headers: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []  # as they came, repeats too
        self.requests: list[tuple[str, int]] = []  # key and number of events
        self.arrived = asyncio.Event()
        self._closing = asyncio.Event()
        app = web.Application(client_max_size=10_000_000)
        app.router.add_post("/api/v1/audit/events", self._take)
        self._runner = web.AppRunner(app)

    @property
    def url(self) -> str:
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/api/v1/audit/events"

    @property
    def ids(self) -> list[str]:
        return [one["event_id"] for one in self.events]

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()

    async def close(self) -> None:
        self._closing.set()
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        events = (await request.json())["events"]
        self.requests.append((request.headers["Idempotency-Key"], len(events)))
        self.arrived.set()
        fault = self.faults.pop(0) if self.faults else 202
        if fault == "hold":
            await self._closing.wait()
        if fault == "lost":
            self.events += events
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if isinstance(fault, int) and fault < 300:
            self.events += events
        return web.Response(status=int(fault) if fault != "hold" else 503, headers=self.headers)
