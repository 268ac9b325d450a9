"""What may happen to one request on its way to Stripe, in Stripe, and back."""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    LOSE_REQUEST = "the connection is reset before the effect"
    LOSE_ANSWER = "the connection is reset after the effect"
    TIME_OUT_BEFORE = "no answer, no effect"
    TIME_OUT_AFTER = "no answer, the effect happens"
    LATE = "no answer; the effect comes after a second try met 409, or a minute on"
    FAIL_BEFORE = "500 without an effect, kept under the key"
    FAIL_AFTER = "500 in spite of the effect, kept under the key"
    AWAY = "503 before anything began, not kept"
    EDGE = "502 with a page for people, before anything began"
    RATE_LIMIT = "429, not kept"
    LOCKED = "429 without saying when to come again, not kept"
    GARBLE = "the effect happens, something between answers in Stripe's place"
    PORTAL = "the effect happens, something between answers 200 with a page for people"
    CUT = "the effect happens, the answer ends in the middle"
    TRICKLE = "the effect happens, the answer comes byte by byte, too slowly"
    FORGET = "the effect happens, the answer is lost, and so is the key before the next try"

    @property
    def waits(self) -> bool:
        """Whether the caller learns of it by a deadline, so that a test takes as long."""
        return self in (Fault.TIME_OUT_BEFORE, Fault.TIME_OUT_AFTER, Fault.LATE, Fault.TRICKLE)
