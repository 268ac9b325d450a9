"""Whether a message is Stripe's: the header `Stripe-Signature` over the raw body.

``t=1700000000,v1=<hex>,v1=<hex>``: HMAC-SHA256 of the time, a dot and the body; several while
Stripe has two secrets for one endpoint, and we may know two as well. Not by Stripe's library:
whoever takes these messages does without its 10 MiB.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Literal

import msgspec

from ledger.domain.stripe_invoice import unix_seconds

# How long a message may be on its way, and how far clocks may differ; what is older is a replay.
TOLERANCE = timedelta(seconds=300)
_LONGEST = 2048  # bytes of a header: Stripe has at most a few signatures in one
_MOST_SIGNATURES = 8
_TIME = re.compile(r"[0-9]{1,12}", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)

Why = Literal["missing", "malformed", "expired", "mismatch"]


class BadSignature(ValueError):
    """The message is not believed; `why` in one word."""

    def __init__(self, why: Why) -> None:
        self.why = why
        super().__init__(why)


class Signature(msgspec.Struct, frozen=True):
    """What a header says: when it was signed, in Unix seconds as sent, and with what."""

    at: str
    made: tuple[str, ...]


def read(header: str | None, now: datetime) -> Signature:
    """The header's, if it is of now; the body need not be there yet. Raises `BadSignature`."""
    if not header:
        raise BadSignature("missing")
    parts = [one.strip().partition("=") for one in header[: _LONGEST + 1].split(",")]
    times = [value for name, _, value in parts if name == "t"]
    # Other schemes (v0) are of tests, or of one to come: nobody may choose a weaker one.
    made = tuple(value for name, _, value in parts if name == "v1")
    if len(header) > _LONGEST or len(times) != 1 or not _TIME.fullmatch(times[0]):
        raise BadSignature("malformed")
    if not 1 <= len(made) <= _MOST_SIGNATURES or not all(map(_HEX.fullmatch, made)):
        raise BadSignature("malformed")
    if abs(unix_seconds(now) - int(times[0])) > TOLERANCE.total_seconds():
        raise BadSignature("expired")
    return Signature(times[0], made)


def check(signature: Signature, body: bytes, secrets: Sequence[str]) -> None:
    """Raises `BadSignature` unless one of the secrets made one of the signatures of this body."""
    signed = signature.at.encode() + b"." + body
    wanted = [hmac.new(one.encode(), signed, sha256).hexdigest() for one in secrets]
    # Every pair is compared, each in constant time: how long it takes says nothing.
    if not sum(hmac.compare_digest(a, b) for a in wanted for b in signature.made):
        raise BadSignature("mismatch")
