"""The way to Redis: events that arrive in the same moment go there in one call."""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.problems import unavailable
from lua.connection import RedisUnavailable
from lua.scripts import Answer, Event, Scripts

CALL_EVENTS = 128  # events in one script call: Redis serves nobody else meanwhile (a few ms)
CALLS = 2  # under way at once: one is decided by Redis while the next is gathered here
WAITING_EVENTS = 10_000  # beyond it an early 503 beats a late answer


class Lane:
    """Events on their way to one Redis server. A call takes all that came while the calls before
    it were under way, so that calls grow with the load instead of their number."""

    def __init__(self, scripts: Scripts, enforce: bool, cap: int) -> None:
        self._scripts = scripts
        self._enforce = enforce
        self._cap = cap
        self._waiting: deque[tuple[Event, asyncio.Future[Answer]]] = deque()
        self._calls = 0
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self.acked: dict[int, str] = {}  # by partition: the last stream id answered for

    def submit(self, event: Event) -> asyncio.Future[Answer]:
        """Sends the event at the end of this tick, or with a later call when Redis is busy."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        if len(self._waiting) >= WAITING_EVENTS:
            future.set_exception(unavailable("too many requests are waiting for Redis"))
            return future
        self._waiting.append((event, future))
        if not self._scheduled and self._calls < CALLS:
            self._scheduled = True
            self._loop.call_soon(self._start)
        return future

    def _start(self) -> None:
        self._scheduled = False
        while self._waiting and self._calls < CALLS:
            count = min(len(self._waiting), CALL_EVENTS)
            taken = [self._waiting.popleft() for _ in range(count)]
            self._calls += 1
            asyncio.ensure_future(self._call(taken))  # noqa: RUF006 - ends by itself, counted

    async def _call(self, taken: list[tuple[Event, asyncio.Future[Answer]]]) -> None:
        try:
            recorded = await self._scripts.record(
                [event for event, _ in taken], enforce=self._enforce, cap=self._cap
            )
        except Exception as error:  # whatever it is, it is these callers' and nobody else's
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
        else:
            self.acked |= recorded.last_ids
            for (_, future), answer in zip(taken, recorded.answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        finally:
            for _, future in taken:  # however this ended: nobody may wait for ever
                if not future.done():
                    future.set_exception(
                        RedisUnavailable("the call was given up", outcome_unknown=True)
                    )
            self._calls -= 1
            self._start()
