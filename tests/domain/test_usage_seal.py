"""What tells a retry from another request, and what an audit seal covers."""

from __future__ import annotations

from datetime import date
from hashlib import sha256
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.seal import CANONICAL, MARK_BYTES, Sealed, canonical, mark
from ledger.domain.seal import seal as sealed
from ledger.domain.usage import FINGERPRINT_BYTES, UsageRecord, fingerprint, parse_entry
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
    "stream_id": "9-9",
    "used_after": 8,
    "pool_used_after": 9,
    "remaining": 10,
    "exceeded": True,
    "enforced": False,
    "payload.idempotency_key": "order-2",
    "payload.metadata": {"feature": "voice"},
}
# No columns of the row; moving a name between these two lists is a decision.
NOT_SEALED: dict[str, object] = {
    "fingerprint": b"another!",
    "terms.anchor": 1,
    "terms.interval": "year",
    "terms.timezone": "UTC",
    "payload.occurred_at": 11,
}
# What version 1 covers, which a ledger of before migration 0018 has made.
SEALED_FIRST = [name for name in SEALED if name not in (
    "stream_id", "used_after", "pool_used_after", "remaining", "exceeded", "enforced",
    "payload.idempotency_key", "payload.metadata",
)]  # fmt: skip
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


def seal(previous: bytes, records: list[UsageRecord], **place: int) -> Sealed:
    return sealed(previous, records, **({"partition": 3, "first": 7} | place))


@pytest.mark.parametrize("name", sorted(SEALED))
def test_a_seal_changes_with_every_field_it_covers(name: str) -> None:
    other = changed(name, SEALED[name])
    assert other != RECORD
    assert canonical(other) != canonical(RECORD)
    assert seal(b"head", [other]).head != seal(b"head", [RECORD]).head
    assert seal(b"head", [other]).marks != seal(b"head", [RECORD]).marks


@pytest.mark.parametrize("name", sorted(NOT_SEALED))
def test_a_seal_can_be_recomputed_without_what_it_does_not_cover(name: str) -> None:
    other = changed(name, NOT_SEALED[name])
    assert other != RECORD
    assert canonical(other) == canonical(RECORD)


@pytest.mark.parametrize("name", sorted(SEALED))
def test_the_first_version_goes_on_to_cover_what_it_did(name: str) -> None:
    first = CANONICAL[1]
    assert (first(changed(name, SEALED[name])) != first(RECORD)) is (name in SEALED_FIRST)
    old = seal(b"a", [RECORD, RECORD], version=1)
    assert old == (sha256(b"a" + 2 * first(RECORD)).digest(), b"")


def test_every_field_of_a_record_is_decided_to_be_sealed_or_not() -> None:
    names = set()
    for field in UsageRecord.__struct_fields__:
        inner = getattr(getattr(RECORD, field), "__struct_fields__", None)
        names |= {f"{field}.{name}" for name in inner} if inner else {field}
    assert names == SEALED.keys() | NOT_SEALED.keys()
    assert not SEALED.keys() & NOT_SEALED.keys()


def test_a_seal_never_changes_for_the_same_records() -> None:
    # Another value here would make every ledger look tampered with.
    assert (
        seal(b"head", [RECORD]).head.hex()
        == "8d1bd4061c7cec3c613b932c0778de0a39218179516655d53931bf7887281545"
    )


def test_a_seal_depends_on_the_previous_head_on_order_and_on_its_place() -> None:
    other = changed("units", 9)
    both = seal(b"a", [RECORD, other])
    assert both.head != seal(b"b", [RECORD, other]).head
    assert both.head != seal(b"a", [other, RECORD]).head
    assert both.head != seal(b"a", [RECORD, other], partition=4).head
    assert both.head != seal(b"a", [RECORD, other], first=8).head
    assert seal(b"a", [RECORD, RECORD]).head != seal(b"a", [RECORD]).head
    assert both.marks == mark(canonical(RECORD)) + mark(canonical(other))
    assert len(both.marks) == 2 * MARK_BYTES


def test_metadata_is_covered_in_any_order_and_none_is_as_good_as_empty() -> None:
    one, other = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}
    assert canonical(changed("payload.metadata", one)) == canonical(
        changed("payload.metadata", other)
    )
    assert canonical(changed("payload.metadata", {})) == canonical(
        changed("payload.metadata", None)
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
