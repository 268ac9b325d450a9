"""HTTP in, HTTP out, of the test clock."""

from __future__ import annotations

from aiohttp import web

from gateway.http import body_of, caller, json_answer
from gateway.test_clock import TestClock


class ClockHandlers:
    def __init__(self, test_clock: TestClock) -> None:
        self._test_clock = test_clock

    async def advance_clock(self, request: web.Request) -> web.Response:
        principal = caller(request)
        return json_answer(await self._test_clock.advance(principal, await body_of(request)))
