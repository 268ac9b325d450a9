"""One call through all its attempts.

Sending a record or a correction again is safe because it carries its key. So whatever leaves the
outcome open (no answer, 408, 5xx) or comes too early (409 with a pause) is sent again, after
growing random pauses or the pause that the service asks for, until there is a definite answer or
the call's deadline has come.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, TypeVar

from gateway.client.errors import (
    BillingError,
    Conflict,
    Forbidden,
    IdempotencyKeyReused,
    InvalidUsage,
    LimitReached,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Unauthorized,
    Unavailable,
)
from gateway.client.results import Limit, quantity
from gateway.client.transport import Answer, lost

log = logging.getLogger("gateway.client")

T = TypeVar("T")

_ERRORS: dict[int, type[BillingError]] = {
    400: InvalidUsage,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    413: InvalidUsage,
    415: InvalidUsage,
    422: IdempotencyKeyReused,
}
_UNREADABLE = (ArithmeticError, AttributeError, KeyError, TypeError, ValueError)
_SHORTEST_ATTEMPT = 0.001  # seconds; zero would mean no limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying:
    """How long to try, in seconds: a whole call, one attempt of it, and the pauses between
    attempts, each random between 0 and a bound that doubles from the first to the longest."""

    deadline_seconds: float = 10.0
    attempt_seconds: float = 3.0
    first_pause_seconds: float = 0.05
    longest_pause_seconds: float = 2.0

    def __post_init__(self) -> None:
        if min(self.deadline_seconds, self.attempt_seconds) <= 0:
            raise ValueError("deadline_seconds and attempt_seconds must be greater than 0")

    def pause(self, attempts: int, chance: float) -> float:
        """Seconds to wait after so many attempts; `chance` is random in [0, 1)."""
        bound = self.first_pause_seconds * 2.0 ** min(attempts - 1, 60)
        return chance * min(bound, self.longest_pause_seconds)


class Call(Generic[T]):
    """What one caller asked and waits for. A call with a key records; others have no effect."""

    def __init__(
        self,
        read: Callable[[Answer], T],
        deadline: float,
        *,
        body: bytes | None = None,
        key: str | None = None,
    ) -> None:
        self.body = body
        self.deadline = deadline  # in the event loop's time
        self.under_way = False
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._read = read
        self._key = key
        self._maybe_recorded = False
        self._last = lost("it could not be sent", sent=False)

    def take(self, answer: Answer) -> bool:
        """Settles the call with a definite answer; False when it is to be asked again."""
        self.under_way = False
        if self.future.done():
            return True
        if answer.ok:
            try:
                self.future.set_result(self._read(answer))
                return True
            except _UNREADABLE:
                answer = lost("the answer cannot be understood", sent=True)
        elif not answer.worth_retrying:
            self.future.set_exception(self._refusal(answer))
            return True
        self._last = answer
        self._maybe_recorded |= self._key is not None and not answer.without_effect
        return False

    def give_up(self) -> None:
        if not self.future.done():
            early = self._last.is_early and not self.under_way
            self.future.set_exception(self._refusal(self._last) if early else self.unavailable())

    def unavailable(self) -> Unavailable:
        """The error of a call whose time is over."""
        unknown = self._maybe_recorded or (self._key is not None and self.under_way)
        why = self._last.document.get("detail", f"status {self._last.status}")
        if self.under_way:
            why = "no answer in time"
        note = "; whether it was recorded is unknown" if unknown else ""
        return Unavailable(
            f"no definite answer from the billing service: {why}{note}",
            status=self._last.status or None,
            slug=self._last.slug,
            key=self._key,
            outcome_unknown=unknown,
            retry_after=self._last.retry_after,
        )

    def _refusal(self, answer: Answer) -> BillingError:
        said = answer.document
        detail = str(said.get("detail") or f"the billing service answered {answer.status}")
        about: dict[str, Any] = {
            "status": answer.status,
            "slug": answer.slug,
            "key": self._key,
            "retry_after": answer.retry_after,
        }
        if answer.status == 429:
            kind = QuotaExceeded if answer.slug == "quota-exceeded" else RateLimited
            return _limit_reached(kind, detail, answer, about)
        # These answers are given before the key is looked at, so they say nothing of an earlier
        # attempt whose answer was lost.
        if answer.status != 422:
            about["outcome_unknown"] = self._maybe_recorded
        return _ERRORS.get(answer.status, BillingError)(detail, **about)


def _limit_reached(
    kind: type[LimitReached], detail: str, answer: Answer, about: dict[str, Any]
) -> LimitReached:
    limit: Limit | None = None
    remaining: Decimal | None = None
    try:
        limit = Limit.read(answer.document["limit"])
        remaining = quantity(answer.document["quota_remaining"])
    except _UNREADABLE:
        pass  # a proxy's 429 does not say them
    return kind(detail, limit=limit, quota_remaining=remaining, **about)


Send = Callable[[Sequence[Call[Any]], float], Awaitable[Sequence[Answer]]]
"""Asks for all of these calls at once, within so many seconds; one answer for each, in order."""


class Sender:
    """Settles calls; tests hand in their own `sleep` and `chance`."""

    def __init__(
        self,
        retrying: Retrying,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._retrying = retrying
        self._sleep = sleep
        self._chance = chance

    def deadline(self) -> float:
        """When a call made now must have its answer."""
        return asyncio.get_running_loop().time() + self._retrying.deadline_seconds

    async def settle(self, calls: Sequence[Call[Any]], send: Send) -> None:
        """Returns when every call has its answer or error, or its caller stopped waiting."""
        time = asyncio.get_running_loop().time
        attempts = 0
        while calls := [call for call in calls if not call.future.done()]:
            for call in calls:
                call.under_way = True
            left = max(call.deadline for call in calls) - time()
            seconds = max(_SHORTEST_ATTEMPT, min(left, self._retrying.attempt_seconds))
            answers = await send(calls, seconds)
            attempts += 1
            pairs = [
                (call, answer)
                for call, answer in zip(calls, answers, strict=True)
                if not call.take(answer)
            ]
            if not pairs:
                return
            asked = max(answer.retry_after or 0 for _, answer in pairs)
            pause = max(asked, self._retrying.pause(attempts, self._chance()))
            resumes = time() + pause
            for call, _ in pairs:
                if resumes >= call.deadline:
                    call.give_up()
            calls = [call for call, _ in pairs if not call.future.done()]
            if calls:
                log.debug("attempt %d: %d calls open, next in %.3f s", attempts, len(calls), pause)
                await self._sleep(pause)
