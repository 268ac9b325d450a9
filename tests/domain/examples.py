"""Usage entries and records for the tests of this folder."""

from __future__ import annotations

from datetime import date
from uuid import UUID

import msgspec

from ledger.domain.usage import Payload, Terms, encode_payload, encode_terms
from tests.entries import packed_entry

USER = UUID("11111111-1111-4111-8111-111111111111")
ORG = UUID("22222222-2222-4222-8222-222222222222")
ID = UUID("33333333-3333-5333-9333-333333333333")
SUBSCRIPTION = UUID("44444444-4444-4444-8444-444444444444")

# As record.lua writes it: 3 units at 2026-03-10 12:00 UTC, in periods since 1 March.
AT = 1_773_144_000_000
STARTS = 1_772_323_200_000
QUOTA = {
    "units": b"3",
    "recorded_at": b"%d" % AT,
    "starts": b"%d" % STARTS,
    "pool_starts": b"-",
    "used": b"7",
    "pool_used": b"-",
    "remaining": b"13",
    "exceeded": b"0",
    "enforced": b"1",
}
POOLED = {"pool_starts": b"%d" % (STARTS + 1), "pool_used": b"90"}

TERMS = Terms(
    SUBSCRIPTION.bytes, "basic", 4, date(2026, 1, 31).toordinal(), "month", "America/New_York"
)
PAYLOAD = Payload("order-1", AT - 60_000, {"feature": "chat"}, "chatbot", None)


def quota_field(**changed: bytes) -> bytes:
    return b" ".join((QUOTA | changed).values())


def entry(**changed: bytes) -> dict[str, bytes]:
    """The fields of a stream entry; what is changed is named as in `tests.entries`."""
    words = {
        "id": ID.bytes,
        "fingerprint": b"8 bytes!",
        "who": b"u" + USER.bytes,
        "type": b"api_calls",
        "quota": quota_field(),
        "terms": encode_terms(TERMS),
        "payload": encode_payload(PAYLOAD),
    }
    return packed_entry(words | changed)


def terms(**changed: object) -> bytes:
    return encode_terms(msgspec.structs.replace(TERMS, **changed))


def payload(**changed: object) -> bytes:
    return encode_payload(msgspec.structs.replace(PAYLOAD, **changed))
