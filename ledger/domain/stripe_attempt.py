"""When a call to Stripe may be sent again, and when what is there must be looked up first.

Stripe answers a key that it knows with the first result, for 24 hours, so a try again costs nothing
within them. Two things would end that: Stripe forgets the key, and a second object would be made;
or the result it keeps is an error (a 500 may have had its effect all the same), and never becomes
another. In both the object is looked for by our id before anything is sent.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec

# Keys go at the earliest after 24 hours; an hour is for clocks. No request is under way for 23.
KEY_KEPT = timedelta(hours=23)
# What is looked up too soon seems not to be there, and would be made twice: a try without an answer
# may still be under way, and a list a little behind.
SETTLED = timedelta(minutes=2)


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """How far a call has come. Stored before each send: a crash must not forget that it was.

    `since` is when it was first sent at all, `key_since` under the present key, `sent_at` last."""

    number: int = 0
    since: datetime | None = None
    key_since: datetime | None = None
    sent_at: datetime | None = None
    key_spent: bool = False

    def next(self, now: datetime) -> Literal["send", "look_up"]:
        if self.key_spent:
            return "look_up"
        if self.key_since is not None and now - self.key_since >= KEY_KEPT:
            return "look_up"
        return "send"

    def sent(self, now: datetime) -> Attempt:
        """Before it is sent."""
        return msgspec.structs.replace(
            self, since=self.since or now, key_since=self.key_since or now, sent_at=now
        )

    def not_before(self, at: datetime) -> datetime:
        """When the next step may be, that would be at `at`: later if a look-up were too soon."""
        if self.sent_at is None or self.next(at) == "send":
            return at
        return max(at, self.sent_at + SETTLED)

    def failed(self, *, stored: bool) -> Attempt:
        """The outcome is unknown; `stored`: Stripe will answer this key so again."""
        return msgspec.structs.replace(self, key_spent=self.key_spent or stored)

    def another_key(self) -> Attempt:
        """For what Stripe knows by an identifier as well as by a key: another try makes no second
        one, for as long as it would not under the first key."""
        return msgspec.structs.replace(self, number=self.number + 1, key_spent=False)

    def nothing_found(self) -> Attempt:
        """Looked up, and not there: it is safe under a key of its own."""
        return Attempt(number=self.number + 1, since=self.since)
