"""The way to Redis: events waiting for one partition go there in few, large calls."""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.problems import unavailable
from lua.scripts import Answer, Event, Scripts

CALL_EVENTS = 128  # events in one script call: Redis serves nobody else meanwhile (about 1 ms)
LANE_EVENTS = 5_000  # waiting for a partition; beyond it an early 503 beats a late answer


class Lane:
    """Events waiting for one partition; at most one call is under way, the next takes all that
    came meanwhile. So calls grow with the load instead of their number."""

    def __init__(self, scripts: Scripts, partition: int, enforce: bool, cap: int) -> None:
        self._scripts = scripts
        self._partition = partition
        self._enforce = enforce
        self._cap = cap
        self._waiting: deque[tuple[Event, asyncio.Future[Answer]]] = deque()
        self._sender: asyncio.Task[None] | None = None
        self.acked = "0-0"  # highest stream id this process has answered for

    def submit(self, event: Event) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= LANE_EVENTS:
            future.set_exception(unavailable("too many requests are waiting for Redis"))
            return future
        self._waiting.append((event, future))
        if self._sender is None:
            self._sender = asyncio.ensure_future(self._send())
        return future

    async def _send(self) -> None:
        try:
            while self._waiting:
                await self._send_some()
        finally:
            self._sender = None

    async def _send_some(self) -> None:
        count = min(len(self._waiting), CALL_EVENTS)
        taken = [self._waiting.popleft() for _ in range(count)]
        try:
            recorded = await self._scripts.record(
                self._partition,
                [event for event, _ in taken],
                enforce=self._enforce,
                cap=self._cap,
            )
        except Exception as error:  # whatever it is, it is these callers' and nobody else's
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
            return
        self.acked = recorded.last_id or self.acked
        for (_, future), answer in zip(taken, recorded.answers, strict=True):
            if not future.done():
                future.set_result(answer)
