"""The record script in plain Python: what it must answer and hold, in the simplest words.

Integers and fractions only; nothing here knows of hashes, includes or Lua numbers.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import msgspec

from lua import keys
from lua.types import Answer, Event, Limit, LookedUp, Missing, Outcome

DAY_MS = 24 * 3_600_000
MAX_UNITS = 2**53 - 1


class Counter(msgspec.Struct):
    """One usage type of one subject."""

    rule: Limit
    used: int
    spent: int = 0  # units taken out of the rate window as of `spent_at` (us)
    spent_at: int = 0

    def left(self) -> int | None:
        if self.rule.limit is None or self.rule.enforcement not in "hsx":
            return None
        return max(0, self.rule.limit - self.used)

    def over(self, units: int) -> bool:
        hard = self.rule.enforcement in "hx" and self.rule.limit is not None
        return hard and self.used + units > (self.rule.limit or 0)

    def rated(self) -> bool:
        return self.rule.rate_limit > 0 and self.rule.enforcement != "w"

    def refilled(self, now_us: int) -> tuple[int, int]:
        """`spent` and `spent_at` once whole units came back, and when the last of them did."""
        back = (now_us - self.spent_at) * self.rule.rate_limit // self.rule.rate_window_us
        if back >= self.spent:
            return 0, now_us
        return self.spent - back, self.spent_at + self.us_of(back)

    def us_of(self, units: int) -> int:
        return ceil(Fraction(units * self.rule.rate_window_us, self.rule.rate_limit))

    def wait_us(self, units: int, now_us: int) -> int:
        spent, at = self.refilled(now_us)
        missing = spent + units - self.rule.rate_limit
        if missing <= 0:
            return 0
        return min(at + self.us_of(missing) - now_us, self.rule.rate_window_us)


class Receipt(msgspec.Struct):
    fingerprint: bytes
    answer: Answer


class Model:
    """A partition whose quotas are all loaded at first, for one period that outlasts the test."""

    def __init__(self, now_us: int, starts: int, ends: int, bumped_at: int = 0) -> None:
        self.now_us = now_us
        self.starts, self.ends = starts, ends
        self.bumped_at = bumped_at
        self.counters: dict[tuple[bytes, str], Counter] = {}
        self.receipts: dict[bytes, Receipt] = {}
        self.entries: list[tuple[Event | None, int]] = []  # None: a change of terms
        self.ended: set[bytes] = set()  # subjects whose terms have ended, until they are loaded
        self.good_until: dict[bytes, int] = {}  # ms, where it is before the period's end
        self.drained = self.trimmed = 0
        self.fenced = False

    @property
    def now_ms(self) -> int:
        return self.now_us // 1000

    def load(self, subject: bytes, *limits: Limit) -> None:
        for one in limits:
            known = self.counters.get((subject, one.usage_type))
            self.counters[subject, one.usage_type] = Counter(
                one,
                known.used if known else one.used,
                known.spent if known else 0,
                known.spent_at if known else 0,
            )

    def gone(self, subject: bytes, usage_type: str) -> int:
        """Units of the subject's entries that are not in the stream any more."""
        trimmed = [event for event, _ in self.entries[: self.trimmed] if event is not None]
        return sum(
            event.units
            for event in trimmed
            if event.who.startswith(subject) and event.usage_type == usage_type
        )

    def _in_force(self, subject: bytes) -> bool:
        good_until = self.good_until.get(subject, self.ends)
        return subject not in self.ended and self.now_ms < good_until

    def supersede(self, subject: bytes) -> None:
        self.ended.add(subject)
        self.entries.append((None, 0))

    def record(
        self, event: Event, *, enforce: bool, cap: int, made: dict[bytes, Receipt]
    ) -> Answer:
        """`made`: receipts of earlier events of the call, also those of other partitions."""
        full = len(self.entries) - self.drained >= cap
        if self.fenced:
            return Answer(Outcome.FENCED)
        if event.fingerprint:
            receipt = self.receipts.get(event.usage_id)
            if not receipt or not self._remembered(receipt.answer.recorded_at):
                receipt = made.get(event.usage_id)
            if receipt:
                if receipt.fingerprint != event.fingerprint:
                    return Answer(Outcome.CONFLICT)
                first = receipt.answer
                return Answer(Outcome.REPLAYED, first.recorded_at, first.remaining, first.exceeded)
            forgetful = self.bumped_at and self.now_ms < self.bumped_at + DAY_MS
            if forgetful and event.looked_up is not LookedUp.UNKNOWN:
                return Answer(Outcome.LOOK_UP)
        if event.occurred_at is not None and not (
            self.now_ms - 35 * DAY_MS <= event.occurred_at <= self.now_ms + 300_000
        ):
            return self._refuse(event, Answer(Outcome.UNTIMELY))
        subjects = [event.who] if keys.pool_of(event.who) is None else [event.who, event.who[:17]]
        found = [
            self.counters.get((subject, event.usage_type)) if self._in_force(subject) else None
            for subject in subjects
        ]
        missing = sum(
            flag
            for flag, one in zip((Missing.USER, Missing.POOL), found, strict=False)
            if one is None
        )
        if missing:
            return Answer(Outcome.MISS, self.now_ms, detail=missing)
        counters = [one for one in found if one is not None]
        if full:
            return Answer(Outcome.FULL)
        if any(one.used + event.units > MAX_UNITS for one in counters):
            return self._refuse(event, Answer(Outcome.OVERFLOW))
        refusal = self._refusal(counters, event.units) if enforce else None
        if refusal is not None:
            return self._refuse(event, refusal)
        answer = self._count(event, counters)
        if event.fingerprint:
            self.receipts[event.usage_id] = Receipt(event.fingerprint, answer)
            made[event.usage_id] = self.receipts[event.usage_id]
        return answer

    def _refuse(self, event: Event, refusal: Answer) -> Answer:
        """The refusal, unless the ledger may know better: the key was perhaps recorded once."""
        unsure = event.fingerprint and event.looked_up is LookedUp.NOT_YET
        return Answer(Outcome.LOOK_UP) if unsure else refusal

    def _remembered(self, made_ms: int) -> bool:
        return self.now_ms // DAY_MS - made_ms // DAY_MS <= 1

    def _refusal(self, counters: list[Counter], units: int) -> Answer | None:
        over = [(one.left() or 0, at) for at, one in enumerate(counters) if one.over(units)]
        if over:
            left, at = min(over)
            return self._refused(Outcome.DENIED, left, at, counters[at].rule.limit or 0, None)
        waits = [
            (-one.wait_us(units, self.now_us), at)
            for at, one in enumerate(counters)
            if one.rated() and one.wait_us(units, self.now_us) > 0
        ]
        if not waits:
            return None
        longest, at = min(waits)
        rule = counters[at].rule
        detail = [ceil(Fraction(-longest, 1000)), rule.rate_window_us // 1_000_000]
        left = rule.rate_limit - counters[at].refilled(self.now_us)[0]
        return self._refused(Outcome.RATE_LIMITED, left, at, rule.rate_limit, detail)

    def _refused(
        self, outcome: Outcome, left: int, at: int, limit: int, detail: list[int] | None
    ) -> Answer:
        return Answer(
            outcome, self.now_ms, left, 1, at + 1, limit, self.starts, self.ends, detail
        )  # fmt: skip

    def _count(self, event: Event, counters: list[Counter]) -> Answer:
        for one in counters:
            one.used += event.units
            if one.rule.rate_limit > 0:
                spent, one.spent_at = one.refilled(self.now_us)
                one.spent = min(spent + event.units, one.rule.rate_limit)
        shown = [(left, at) for at, one in enumerate(counters) if (left := one.left()) is not None]
        exceeded = any(
            one.rule.limit is not None and one.used > one.rule.limit
            for one in counters
            if one.left() is not None
        )
        left, at = min(shown) if shown else (None, -1)
        limit = counters[at].rule.limit or 0 if shown else 0
        answer = Answer(
            Outcome.RECORDED, self.now_ms, left, int(exceeded), at + 1, limit,
            self.starts, self.ends,
        )  # fmt: skip
        self.entries.append((event, counters[0].used))
        return answer
