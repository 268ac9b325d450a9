"""What callers are told about limits: RateLimit headers, and the problem when one binds."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from gateway.messages import BoundLimit
from gateway.problems import Kind, Problem, unavailable
from ledger.domain.quantity import quantity_of
from lua.types import Answer, CheckAnswer, Outcome

_SCOPES = {1: "user", 2: "organization"}
_LONGEST_MONTH_MS = 32 * 86_400_000

_REFUSALS = {
    Outcome.CONFLICT: (
        Kind.IDEMPOTENCY_KEY_REUSE,
        "this idempotency key was used before with another body",
    ),
    Outcome.UNTIMELY: (
        Kind.INVALID_USAGE,
        "occurred_at must lie within the last 35 days and at most 5 minutes ahead",
    ),
    Outcome.OVERFLOW: (Kind.INVALID_USAGE, "quantity is too large for this quota's total"),
}


def window(starts: int, ends: int) -> str:
    """The period's name: ``month`` or ``year``."""
    return "month" if ends - starts <= _LONGEST_MONTH_MS else "year"


def bound(usage_type: str, places: int, answer: Answer | CheckAnswer) -> BoundLimit | None:
    """The limit an answer is about; None when none applies."""
    if not answer.scope:
        return None
    if answer.outcome is Outcome.RATE_LIMITED:
        name = f"{int(answer.detail[1])}s"
    else:
        name = window(answer.starts, answer.ends)
    return BoundLimit(
        scope=_SCOPES[answer.scope],  # type: ignore[arg-type]
        usage_type=usage_type,
        window=name,
        limit=quantity_of(answer.limit, places),
    )


def headers(answer: Answer, places: int, now_ms: int) -> dict[str, str]:
    """RateLimit headers for the tightest limit; none when unlimited. Whole numbers, floored."""
    if not answer.scope or answer.remaining is None:
        return {}
    if answer.outcome is Outcome.RATE_LIMITED:
        seconds, reset = int(answer.detail[1]), _seconds(int(answer.detail[0]))
        name = f"per-{seconds}s"
    else:
        seconds, reset = (answer.ends - answer.starts) // 1000, _seconds(answer.ends - now_ms)
        name = f"{window(answer.starts, answer.ends)}ly"
    return {
        "RateLimit-Policy": _policy(name, answer.limit // 10**places, seconds),
        "RateLimit": f'"{name}";r={answer.remaining // 10**places};t={reset}',
    }


@lru_cache(maxsize=4096)
def _policy(name: str, quota: int, seconds: int) -> str:
    return f'"{name}";q={quota};w={seconds}'


def problem(usage_type: str, places: int, answer: Answer) -> Problem:
    """The problem that a refusing outcome stands for."""
    if answer.outcome in _REFUSALS:
        return Problem(*_REFUSALS[answer.outcome])
    if answer.outcome is Outcome.FULL:
        return unavailable("the ledger is too far behind to take more usage", retry_after=5)
    if answer.outcome is Outcome.BLOCKED:
        reason = bytes(answer.detail).decode()
        return Problem(Kind.FORBIDDEN, f"the subscription is {reason}", denied=False, reason=reason)
    if answer.outcome is Outcome.RATE_LIMITED:
        kind, detail = Kind.RATE_LIMITED, "too much in this window; wait and retry"
        retry_ms = int(answer.detail[0])
    else:
        kind, detail = Kind.QUOTA_EXCEEDED, "the quota of this period does not allow this quantity"
        retry_ms = answer.ends - answer.recorded_at
    members: dict[str, Any] = {
        "limit": bound(usage_type, places, answer),
        "quota_remaining": quantity_of(answer.remaining or 0, places),
        "quota_exceeded": True,
        "retry_after": _seconds(retry_ms),  # also here: a record of a batch has no headers
    }
    shown = headers(answer, places, answer.recorded_at)
    return Problem(kind, detail, {"Retry-After": str(_seconds(retry_ms)), **shown}, **members)


def _seconds(ms: int) -> int:
    """Whole seconds, rounded up, at least one: retrying earlier would be refused again."""
    return max(1, -(-ms // 1000))
