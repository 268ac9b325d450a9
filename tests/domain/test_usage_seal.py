"""What tells a retry from another request, and what an audit seal covers."""

from __future__ import annotations

from datetime import date
from hashlib import sha256
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.usage import (
    FINGERPRINT_BYTES,
    UsageRecord,
    canonical,
    fingerprint,
    parse_entry,
    seal,
)
from tests.domain import examples

SAID: dict[str, object] = {
    "who": b"u" + examples.USER.bytes,
    "usage_type": "api_calls",
    "units": 3,
    "occurred_at": examples.AT,
    "metadata": {"feature": "chat", "department": "sales"},
}
# Field of the record, or of its terms or payload, and another value for it.
SEALED: dict[str, object] = {
    "usage_id": UUID(int=1).bytes,
    "user_id": UUID(int=2).bytes,
    "organization_id": UUID(int=3).bytes,
    "usage_type": "ai_tokens",
    "units": 4,
    "recorded_at": examples.AT + 1,
    "occurred_at": examples.AT + 2,
    "billing_period": date(2026, 1, 30),
    "quota_period": 5,
    "pool_period": 6,
    "terms.subscription_id": b"x" * 16,
    "terms.plan_tier": "enterprise",
    "terms.plan_version": 5,
    "payload.recorded_by": "someone else",
    "payload.reversal_of": b"y" * 16,
}
# Known to the ledger but not sealed; moving a name between these two lists is a decision.
NOT_SEALED: dict[str, object] = {
    "stream_id": "9-9",
    "fingerprint": b"another!",
    "used_after": 8,
    "pool_used_after": 9,
    "remaining": 10,
    "exceeded": True,
    "enforced": False,
    "terms.anchor": 1,
    "terms.interval": "year",
    "terms.timezone": "UTC",
    "payload.idempotency_key": "order-2",
    "payload.occurred_at": 11,
    "payload.metadata": {"feature": "voice"},
}
RECORD = parse_entry("5-1", examples.entry())


def said(**changed: object) -> bytes:
    return fingerprint(**(SAID | changed))  # type: ignore[arg-type]


def changed(name: str, value: object) -> UsageRecord:
    part, _, field = name.rpartition(".")
    if part:
        value = msgspec.structs.replace(getattr(RECORD, part), **{field: value})
    return msgspec.structs.replace(RECORD, **{part or field: value})


def test_a_fingerprint_never_changes_for_the_same_request() -> None:
    # Another value here would turn every retry across a deployment into a conflict.
    assert said().hex() == "3e225345c0ece029"
    assert len(said()) == FINGERPRINT_BYTES


@given(st.permutations([("a", "1"), ("b", "2"), ("c", "3"), ("d", "")]))
def test_the_order_of_metadata_does_not_matter(items: list[tuple[str, str]]) -> None:
    assert said(metadata=dict(items)) == said(metadata=dict(sorted(items)))


def test_no_metadata_and_empty_metadata_are_the_same_request() -> None:
    assert said(metadata=None) == said(metadata={})


@pytest.mark.parametrize(
    "other",
    [
        {"who": b"o" + examples.ORG.bytes + examples.USER.bytes},
        {"who": b"u" + examples.ORG.bytes},
        {"usage_type": "ai_tokens"},
        {"units": 4},
        {"units": 30},
        {"occurred_at": None},
        {"occurred_at": examples.AT + 1},
        {"metadata": None},
        {"metadata": {"feature": "chat"}},
        {"metadata": {"feature": "sales", "department": "chat"}},
        {"metadata": {"featur": "echat", "department": "sales"}},
    ],
)
def test_every_field_makes_another_request(other: dict[str, object]) -> None:
    assert said(**other) != said()


@pytest.mark.parametrize("name", sorted(SEALED))
def test_a_seal_changes_with_every_field_it_covers(name: str) -> None:
    other = changed(name, SEALED[name])
    assert other != RECORD
    assert canonical(other) != canonical(RECORD)
    assert seal(b"head", [other]) != seal(b"head", [RECORD])


@pytest.mark.parametrize("name", sorted(NOT_SEALED))
def test_a_seal_can_be_recomputed_without_what_it_does_not_cover(name: str) -> None:
    other = changed(name, NOT_SEALED[name])
    assert other != RECORD
    assert canonical(other) == canonical(RECORD)


def test_every_field_of_a_record_is_decided_to_be_sealed_or_not() -> None:
    names = set()
    for field in UsageRecord.__struct_fields__:
        inner = getattr(getattr(RECORD, field), "__struct_fields__", None)
        names |= {f"{field}.{name}" for name in inner} if inner else {field}
    assert names == SEALED.keys() | NOT_SEALED.keys()
    assert not SEALED.keys() & NOT_SEALED.keys()


def test_a_seal_depends_on_the_previous_head_and_on_order() -> None:
    other = changed("units", 9)
    assert seal(b"a", [RECORD]) != seal(b"b", [RECORD])
    assert seal(b"a", [RECORD, other]) != seal(b"a", [other, RECORD])
    assert seal(b"a", [RECORD, RECORD]) != seal(b"a", [RECORD])
    assert (
        seal(b"a", [RECORD, other]) == sha256(b"a" + canonical(RECORD) + canonical(other)).digest()
    )


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_text_cannot_move_between_neighbouring_fields(a: str, b: str, c: str, d: str) -> None:
    one = msgspec.structs.replace(
        RECORD, usage_type=a, terms=msgspec.structs.replace(examples.TERMS, plan_tier=b)
    )
    other = msgspec.structs.replace(
        RECORD, usage_type=c, terms=msgspec.structs.replace(examples.TERMS, plan_tier=d)
    )
    assert (canonical(one) == canonical(other)) is ((a, b) == (c, d))
