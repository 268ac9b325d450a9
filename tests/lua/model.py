"""The record and correct scripts in plain Python: what they must answer and hold, in the simplest
words.

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
    base: int = 0  # what the ledger has of the period from before the test
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


class Entry(msgspec.Struct):
    """Of the stream. -1: a counter that a correction left alone, or a pool that there is not."""

    event: Event | None = None  # None: of no usage
    starts: int = -1
    pool_starts: int = -1
    used: int = -1
    pool_used: int = -1


class Model:
    """A partition whose quotas are all loaded at first, for one period that outlasts the test but
    where it is made to end."""

    def __init__(self, now_us: int, starts: int, ends: int, bumped_at: int = 0) -> None:
        self.now_us = now_us
        self.starts, self.ends = starts, ends
        self.bumped_at = bumped_at
        self.counters: dict[tuple[bytes, str], Counter] = {}
        self.receipts: dict[bytes, Receipt] = {}
        self.entries: list[Entry] = []
        self.epoch = 1
        self.ended: set[bytes] = set()  # subjects whose terms have ended, until they are loaded
        self.good_until: dict[bytes, int] = {}  # ms, where it is before the period's end
        self.drained = self.trimmed = 0
        self.fenced = False

    @property
    def now_ms(self) -> int:
        return self.now_us // 1000

    def load(self, subject: bytes, *limits: Limit) -> None:
        for one in limits:
            self.counters[subject, one.usage_type] = Counter(one, one.used, one.used)

    def load_again(self, subject: bytes, good_until: int) -> None:
        """With what was counted elsewhere meanwhile: all entries of the period."""
        for usage_type in self._types(subject):
            self.counters[subject, usage_type].used = self.counted(subject, usage_type)
        self.ended.discard(subject)
        self.good_until[subject] = good_until

    def counted(self, subject: bytes, usage_type: str, through: int | None = None) -> int:
        """Units of the subject in the period, by the first so many entries."""
        return self.counters[subject, usage_type].base + sum(
            one.event.units
            for one in self.entries[:through]
            if one.event is not None
            and one.event.who.startswith(subject)
            and one.event.usage_type == usage_type
            and (one.pool_starts if is_pool(subject) else one.starts) == self.starts
        )

    def _types(self, subject: bytes) -> list[str]:
        return [usage_type for one, usage_type in self.counters if one == subject]

    def roll_over(self) -> None:
        """A new period begins now."""
        self.starts = self.now_ms
        for one in self.counters.values():
            one.base = 0

    def lose(self, *, keeps_quotas: bool) -> None:
        """What is not drained, the receipts and, unless kept in vain, the quotas."""
        del self.entries[self.drained :]
        self.trimmed = self.drained
        self.entries.append(Entry())
        self.receipts.clear()
        self.epoch += 1
        self.bumped_at, self.fenced = self.now_ms, False
        for (subject, _), one in self.counters.items():
            self.ended.add(subject)
            if not keeps_quotas:
                one.used = one.spent = one.spent_at = 0

    def in_force(self, subject: bytes) -> bool:
        good_until = self.good_until.get(subject, self.ends)
        return subject not in self.ended and self.now_ms < good_until

    def supersede(self, subject: bytes) -> None:
        self.ended.add(subject)
        self.entries.append(Entry())

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
        subjects = subjects_of(event)
        found = [
            self.counters.get((subject, event.usage_type)) if self.in_force(subject) else None
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
        left, at, exceeded = _shown(counters)
        limit = counters[at].rule.limit or 0 if left is not None else 0
        answer = Answer(
            Outcome.RECORDED, self.now_ms, left, exceeded, at + 1, limit, self.starts, self.ends
        )
        self._append(event, [self.starts] * len(counters), [one.used for one in counters])
        return answer

    def _append(self, event: Event, periods: list[int], used: list[int]) -> None:
        starts, pool_starts = (*periods, -1)[:2]
        self.entries.append(Entry(event, starts, pool_starts, *used))

    def correct(self, event: Event, periods: list[int], *, cap: int) -> Answer:
        """`event.units` are signed; `periods` when those of the user and the pool began."""
        if self.fenced:
            return Answer(Outcome.FENCED)
        receipt = self.receipts.get(event.usage_id)
        if receipt and self._remembered(receipt.answer.recorded_at):
            first = receipt.answer
            if receipt.fingerprint != event.fingerprint:
                return Answer(Outcome.CONFLICT)
            return Answer(Outcome.REPLAYED, first.recorded_at, first.remaining, first.exceeded)
        if len(self.entries) - self.drained >= cap:
            return Answer(Outcome.FULL)
        found = [
            self.counters[subject, event.usage_type]
            if self.in_force(subject) and starts == self.starts
            else None
            for subject, starts in zip(subjects_of(event), periods, strict=True)
        ]
        counters = [one for one in found if one is not None]
        if any(one.used + event.units > MAX_UNITS for one in counters):
            return Answer(Outcome.OVERFLOW)
        for one in counters:
            one.used += event.units
        left, _, exceeded = _shown(counters) if len(counters) == len(found) else (None, -1, 0)
        answer = Answer(Outcome.RECORDED, self.now_ms, left, exceeded)
        self._append(event, periods, [-1 if one is None else one.used for one in found])
        self.receipts[event.usage_id] = Receipt(event.fingerprint, answer)
        return answer


def _shown(counters: list[Counter]) -> tuple[int | None, int, int]:
    """What is left under the tightest limit, of which counter, and whether any is passed."""
    shown = [(left, at) for at, one in enumerate(counters) if (left := one.left()) is not None]
    over = any(counters[at].used > (counters[at].rule.limit or 0) for _, at in shown)
    left, at = min(shown) if shown else (None, -1)
    return left, at, int(over)


def is_pool(subject: bytes) -> bool:
    return subject[:1] == b"o" and len(subject) == 17


def subjects_of(event: Event) -> list[bytes]:
    pool = keys.pool_of(event.who)
    return [event.who] if pool is None else [event.who, pool]
