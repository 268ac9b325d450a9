"""Many concurrent records, few requests.

Records that wait at the same time travel together; each caller gets its own answer. While all
requests allowed at once are under way, waiting records gather into larger ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gateway.client.sending import Call, Sender
from gateway.client.transport import Answer, lost

T = TypeVar("T")
Post = Callable[[bytes, float], Awaitable[Answer]]
"""Sends the body of a batch, within so many seconds."""

_MOST_RECORDS = 1000  # that the service takes in one request
_MOST_BYTES = 1 << 20  # half of what it takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How records are gathered: at most `max_records` in a request, the first of which waits at
    most `max_delay_seconds` for company; at most `max_requests` under way at once, and at most
    `max_pending` records waiting or under way before further callers have to wait."""

    max_records: int = 500
    max_delay_seconds: float = 0.002
    max_requests: int = 4
    max_pending: int = 10_000

    def __post_init__(self) -> None:
        if not 1 <= self.max_records <= _MOST_RECORDS:
            raise ValueError(f"max_records must be 1 to {_MOST_RECORDS}")
        if min(self.max_requests, self.max_pending) < 1 or self.max_delay_seconds < 0:
            raise ValueError("max_requests and max_pending must be at least 1, the delay 0")


class Batcher:
    """Gathers calls and settles them together."""

    def __init__(self, options: Batching, sender: Sender, post: Post) -> None:
        self._options = options
        self._sender = sender
        self._post = post
        self._room = asyncio.Semaphore(options.max_pending)
        self._waiting: deque[Call[Any]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._requests: set[asyncio.Task[None]] = set()

    async def submit(self, call: Call[T]) -> T:
        """The call's own answer or error, whatever becomes of the others."""
        try:
            async with asyncio.timeout_at(call.deadline), self._room:
                self._add(call)
                return await call.future
        except TimeoutError:
            late = call.unavailable()
        raise late

    def hurry(self) -> None:
        """From now on no record waits for company."""
        self._options = replace(self._options, max_delay_seconds=0)
        self._pump()

    def _add(self, call: Call[Any]) -> None:
        self._waiting.append(call)
        if len(self._waiting) >= self._options.max_records:
            self._pump()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._options.max_delay_seconds, self._pump)

    def _pump(self) -> None:
        """Starts requests while records wait and another request may be under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while len(self._requests) < self._options.max_requests and (calls := self._take()):
            task = asyncio.get_running_loop().create_task(self._request(calls))
            self._requests.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        self._pump()

    def _take(self) -> list[Call[Any]]:
        """The next calls that somebody still waits for, as many as fit into a request."""
        calls: list[Call[Any]] = []
        size = 0
        while self._waiting and len(calls) < self._options.max_records:
            call = self._waiting[0]
            size += len(call.body or b"") + 1
            if calls and size > _MOST_BYTES:
                break
            self._waiting.popleft()
            if not call.future.done():
                calls.append(call)
        return calls

    async def _request(self, calls: list[Call[Any]]) -> None:
        try:
            await self._sender.settle(calls, self._send)
        except Exception as error:  # the token function's, for instance: every caller's error
            for call in calls:
                if not call.future.done():
                    call.future.set_exception(error)
        finally:
            for call in calls:
                call.give_up()

    async def _send(self, calls: Sequence[Call[Any]], seconds: float) -> list[Answer]:
        body = b'{"records":[' + b",".join(call.body or b"" for call in calls) + b"]}"
        answer = await self._post(body, seconds)
        if not answer.ok:
            return [answer] * len(calls)
        results = answer.document.get("results")
        if not isinstance(results, list) or len(results) != len(calls):
            return [lost("the answer cannot be understood", sent=True)] * len(calls)
        return [_own(result) for result in results]


def _own(result: object) -> Answer:
    """The answer that `POST /usage` would have given to one record."""
    if not isinstance(result, Mapping) or not isinstance(status := result.get("status"), int):
        return lost("the answer cannot be understood", sent=True)
    wait = result.get("retry_after")  # a record of a batch has no headers to say it in
    return Answer(
        status,
        result,
        replayed=result.get("replayed") is True,
        retry_after=wait if isinstance(wait, int) else None,
    )
