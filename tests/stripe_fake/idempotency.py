"""Stripe's memory of idempotency keys (docs.stripe.com/api/idempotent_requests)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from tests.stripe_fake.clock import Clock

KEPT = timedelta(hours=24)  # at least, it says: here exactly, which is the hardest for a caller


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]


class _Kept(NamedTuple):
    said: tuple[str, Any]
    at: datetime
    answer: Answer | None  # None while the request is under way


class KeyMismatch(Exception):
    """The key came with another body before."""


class KeyInUse(Exception):
    """A request under this key is under way."""


class Keys:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    def begin(self, key: str, said: tuple[str, Any]) -> Answer | None:
        """The answer that is kept; None when the request is to be carried out now."""
        now = self._clock.now()
        self._kept = {
            one: kept
            for one, kept in self._kept.items()
            if kept.answer is None or now - kept.at < KEPT
        }
        kept = self._kept.get(key)
        if kept is None:
            self._kept[key] = _Kept(said, now, None)
            return None
        if kept.said != said:
            raise KeyMismatch
        if kept.answer is None:
            raise KeyInUse
        return kept.answer

    def end(self, key: str, answer: Answer) -> None:
        self._kept[key] = self._kept[key]._replace(answer=answer)
