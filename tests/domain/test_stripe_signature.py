"""Whether a message is Stripe's. Forged and replayed ones, each in its own way."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha1, sha256

import pytest

from ledger.domain import stripe_signature
from ledger.domain.stripe_signature import TOLERANCE, BadSignature

NOW = datetime(2026, 11, 1, tzinfo=UTC)
AT = int(NOW.timestamp())
BODY = b'{"id": "evt_1"}'
SECRET, OLD = "whsec_new", "whsec_old"


def hexed(body: bytes = BODY, at: int = AT, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), b"%d." % at + body, sha256).hexdigest()


def accept(header: str | None, body: bytes = BODY, now: datetime = NOW) -> None:
    stripe_signature.check(stripe_signature.read(header, now), body, [SECRET, OLD])


GENUINE = f"t={AT},v1={hexed()}"


@pytest.mark.parametrize(
    "header",
    [
        GENUINE,
        f"t={AT},v1={'0' * 64},v1={hexed()}",
        f"t={AT},v1={hexed(secret=OLD)}",
        f"t={AT}, v1={hexed()}, v0={'f' * 64}",
    ],
    ids=["one", "second of two", "the old secret's", "beside another scheme"],
)
def test_what_stripe_signed_is_believed(header: str) -> None:
    accept(header)


@pytest.mark.parametrize("late", [TOLERANCE, -TOLERANCE])
def test_it_may_be_on_its_way_for_five_minutes(late: timedelta) -> None:
    accept(GENUINE, now=NOW + late)


FORGED: dict[str, tuple[str | None, str]] = {
    "no header": (None, "missing"),
    "an empty one": ("", "missing"),
    "noise": ("x" * 50, "malformed"),
    "no time": (f"v1={hexed()}", "malformed"),
    "two times": (f"t={AT},t={AT + 1},v1={hexed()}", "malformed"),
    "a time that is no number": (f"t=now,v1={hexed()}", "malformed"),
    "digits of another script": (f"t=١٢٣,v1={hexed()}", "malformed"),
    "no signature": (f"t={AT}", "malformed"),
    "another scheme only": (f"t={AT},v0={hexed()}", "malformed"),
    "a shortened signature": (f"t={AT},v1={hexed()[:-1]}", "malformed"),
    "an empty signature": (f"t={AT},v1=", "malformed"),
    "letters beyond ASCII": (f"t={AT},v1={'é' * 64}", "malformed"),
    "a weaker hash": (
        f"t={AT},v1={hmac.new(SECRET.encode(), BODY, sha1).hexdigest()}",
        "malformed",
    ),
    "a hundred guesses": (f"t={AT}" + f",v1={hexed()}" * 100, "malformed"),
    "nine guesses": (f"t={AT}" + f",v1={hexed()}" * 9, "malformed"),
    "another secret's": (f"t={AT},v1={hexed(secret='whsec_other')}", "mismatch"),
    "one of the body alone": (
        f"t={AT},v1={hmac.new(SECRET.encode(), BODY, sha256).hexdigest()}",
        "mismatch",
    ),
    "one of another body": (f"t={AT},v1={hexed(b'{}')}", "mismatch"),
    "an old one under a new time": (f"t={AT},v1={hexed(at=AT - 3600)}", "mismatch"),
    "a replay": (f"t={AT - 301},v1={hexed(at=AT - 301)}", "expired"),
    "one from the future": (f"t={AT + 301},v1={hexed(at=AT + 301)}", "expired"),
}


@pytest.mark.parametrize(("header", "why"), FORGED.values(), ids=FORGED)
def test_what_is_forged_or_replayed_is_refused(header: str | None, why: str) -> None:
    with pytest.raises(BadSignature) as refused:
        accept(header)
    assert refused.value.why == why


@pytest.mark.parametrize(
    "changed",
    [lambda body: body + b" ", lambda body: body[:-1], lambda body: body.replace(b"1", b"2")],
)
def test_a_body_that_was_changed_on_its_way_is_refused(changed: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BadSignature, match="mismatch"):
        accept(GENUINE, changed(BODY))


def test_an_empty_secret_list_believes_nobody() -> None:
    with pytest.raises(BadSignature, match="mismatch"):
        stripe_signature.check(stripe_signature.read(GENUINE, NOW), BODY, [])
