"""Sends records in batches until each has an answer.

Sending a record again is always safe, because every record carries its key. So whatever leaves
its outcome open (no answer, a 5xx, a per-record 503) is sent again, with growing pauses, until
nothing has moved for `PATIENCE` seconds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self

import aiohttp
import msgspec

from gateway.replay.plan import Record
from gateway.replay.report import Tally

BATCH = 1000
"""Records in one request: the most the service takes."""

PATIENCE = 60.0
"""Seconds a batch is tried without one of its records being settled: outlives a restart."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_LONGEST_RETRY_AFTER = 30.0
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class ServiceProblem(Exception):
    """The service cannot take the records; the message is one line for the user."""


class NoAnswer(Exception):
    """A request without a usable answer; ``sent`` says whether it may have had an effect."""

    def __init__(self, sent: bool) -> None:
        self.sent = sent


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    retry_after: float


class Result(msgspec.Struct, frozen=True):
    """What became of one record: the usage answer or a problem, of which only this is read."""

    status: int
    replayed: bool = False
    type: str = ""
    title: str = ""
    detail: str = ""


class _Results(msgspec.Struct, frozen=True):
    results: list[Result]


class Timer:
    """The time of a run and the wish to end it; tests hand in their own ``now`` and ``sleep``."""

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.now, self._sleep, self.chance = now, sleep, chance
        self.stop = asyncio.Event()

    async def pause(self, seconds: float) -> None:
        """Wait, but not past the moment the run is stopped."""
        waits = [asyncio.ensure_future(self._sleep(seconds)), asyncio.ensure_future(self._ended())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _ended(self) -> None:
        await self.stop.wait()


class Service:
    """The batch endpoint over HTTP."""

    def __init__(self, url: str, token: str | None, connections: int, timeout: float) -> None:
        self._url = f"{url.rstrip('/')}/api/v1/billing/usage/batch"
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=5),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def post(self, body: bytes) -> Answer:
        """One attempt. No redirects: the token goes to the named service only."""
        try:
            async with self._session.post(self._url, data=body, allow_redirects=False) as response:
                after = response.headers.get("Retry-After", "")
                seconds = float(after) if after.isascii() and after.isdigit() else 0.0
                return Answer(response.status, await response.read(), seconds)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise NoAnswer(sent=False) from None
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise NoAnswer(sent=True) from None


class Sender:
    """Sends batches and enters every answer in the tally; several may be under way at once."""

    def __init__(
        self, post: Callable[[bytes], Awaitable[Answer]], url: str, tally: Tally, timer: Timer
    ) -> None:
        self._post, self._url, self.tally, self._timer = post, url, tally, timer
        self._reached = False

    async def send(self, records: Sequence[Record]) -> None:
        """Returns when every record is settled or the run is stopped.

        What is left then counts as unknown if an attempt may have had an effect.
        """
        timer, pending = self._timer, list(records)
        since, pause, uncertain = timer.now(), _FIRST_PAUSE, False
        try:
            while pending:
                retry_after = 0.0
                try:
                    answer = await self._attempt(pending)
                    before, pending = len(pending), self._settle(pending, answer)
                    retry_after = answer.retry_after
                    uncertain = bool(pending)
                    if len(pending) < before:
                        since, pause = timer.now(), _FIRST_PAUSE
                except NoAnswer as lost:
                    uncertain = uncertain or lost.sent
                    if not (lost.sent or self._reached):
                        raise ServiceProblem(
                            f"no billing service at {self._url}; start one with ./run"
                        ) from None
                if not pending or timer.stop.is_set():
                    return
                left = since + PATIENCE - timer.now()
                if left <= 0:
                    raise ServiceProblem(f"{self._url} took no record for {PATIENCE:.0f} s")
                wait = pause * (0.5 + timer.chance() / 2)
                await timer.pause(min(left, max(wait, min(retry_after, _LONGEST_RETRY_AFTER))))
                pause = min(2 * pause, _LONGEST_PAUSE)
        except asyncio.CancelledError:
            uncertain = True
            raise
        finally:
            if uncertain:
                self.tally.unknown += len(pending)

    async def _attempt(self, pending: list[Record]) -> Answer:
        body = _ENCODER.encode({"records": [record.usage for record in pending]})
        started = self._timer.now()
        answer = await self._post(body)
        self.tally.latencies.add(self._timer.now() - started)
        self._reached = True
        return answer

    def _settle(self, pending: list[Record], answer: Answer) -> list[Record]:
        """Enter what is decided; the records still open, in their order."""
        if answer.status == 200:
            results = self._results(answer.body, len(pending))
        elif answer.status == 408 or answer.status >= 500:
            return pending
        elif answer.status in (401, 403):
            raise ServiceProblem(
                f"{self._url} refused the token ({answer.status}); "
                "give one with usage:write in BILLING_TOKEN or --token"
            )
        elif answer.status in (400, 409, 413, 415, 422, 429):
            results = [_problem(answer)] * len(pending)
        else:
            raise ServiceProblem(
                f"{self._url} answered {answer.status}: is it the billing service?"
            )
        return [
            record
            for record, result in zip(pending, results, strict=True)
            if not self._decided(record, result)
        ]

    def _decided(self, record: Record, result: Result) -> bool:
        usage = record.usage
        if result.status == 201:
            enter = self.tally.repeat if result.replayed else self.tally.accept
            enter(usage.usage_type, usage.quantity)
        elif result.status == 429:
            self.tally.deny(usage.usage_type, usage.quantity)
        elif result.status == 408 or result.status >= 500:
            return False
        else:
            why = " ".join(f"{result.title or result.type} {result.detail}".split())[:200]
            self.tally.reject(
                f"line {record.line}, column {record.column}: {result.status} {why}".rstrip()
            )
        return True

    @staticmethod
    def _results(body: bytes, expected: int) -> list[Result]:
        try:
            results = msgspec.json.decode(body, type=_Results).results
        except (msgspec.MsgspecError, RecursionError):
            raise NoAnswer(sent=True) from None
        if len(results) != expected:
            raise NoAnswer(sent=True)
        return results


def _problem(answer: Answer) -> Result:
    """The whole request's problem, as if every record had been answered with it."""
    try:
        found = msgspec.json.decode(answer.body, type=dict[str, object])
    except (msgspec.MsgspecError, RecursionError):
        found = {}
    title, detail = str(found.get("title", "")), str(found.get("detail", ""))
    return Result(answer.status, title=title, detail=detail)
