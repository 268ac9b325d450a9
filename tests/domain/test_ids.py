"""Identifiers come out the same wherever they are made."""

from __future__ import annotations

from itertools import pairwise
from uuid import RFC_4122, UUID, uuid4

from hypothesis import assume, given
from hypothesis import strategies as st

from ledger.domain import ids
from ledger.domain.ids import dev_uuid

USER = UUID("0b7a3b52-1b0a-4a3e-9d41-0f5d3c2b1a00")


def usage_id_for_key(user: UUID, key: str) -> UUID:
    return UUID(bytes=ids.usage_id_for_key(user, key))


def usage_id_without_key(now_ms: int) -> UUID:
    return UUID(bytes=ids.usage_id_without_key(now_ms))


keys = st.text(min_size=1, max_size=255)


def test_the_usage_id_of_a_key_never_changes() -> None:
    # Another value here would let every idempotency key in use count a second time.
    assert usage_id_for_key(USER, "order-1") == UUID("ae6e3d5d-8692-5198-bf08-134a9d54a290")
    assert usage_id_for_key(USER, "ключ") == UUID("d891096e-484d-5736-a3c0-f6511d6768ad")
    assert dev_uuid("test-user") == UUID("1a6ee668-d2df-5f91-93f2-4f3b7190fddb")


@given(st.uuids(), keys, st.uuids(), keys)
def test_another_user_or_another_key_is_another_unit(
    user: UUID, key: str, other_user: UUID, other_key: str
) -> None:
    assume((user, key) != (other_user, other_key))
    assert usage_id_for_key(user, key) != usage_id_for_key(other_user, other_key)


@given(st.uuids(), keys, st.integers(1, 36))
def test_characters_cannot_move_between_user_and_key(user: UUID, key: str, moved: int) -> None:
    text = str(user)
    for other in (text[-moved:] + key, key + text[:moved], f":{key}", f"{len(key)}:{key}"):
        assert usage_id_for_key(user, key) != usage_id_for_key(user, other)


@given(st.uuids(), keys)
def test_a_keyed_id_is_a_version_5_uuid(user: UUID, key: str) -> None:
    made = usage_id_for_key(user, key)
    assert (made.version, made.variant) == (5, RFC_4122)


@given(st.integers(0, 2**48 - 1))
def test_an_unkeyed_id_is_a_version_7_uuid_that_begins_with_its_time(now_ms: int) -> None:
    made = usage_id_without_key(now_ms)
    assert (made.version, made.variant) == (7, RFC_4122)
    assert made.int >> 80 == now_ms


@given(st.lists(st.integers(0, 2**48 - 1), unique=True, min_size=2, max_size=20).map(sorted))
def test_unkeyed_ids_sort_by_time(times: list[int]) -> None:
    made = [usage_id_without_key(now_ms) for now_ms in times]
    assert all(one.bytes < other.bytes for one, other in pairwise(made))


def test_unkeyed_ids_of_one_millisecond_differ_and_use_every_random_bit() -> None:
    made = [usage_id_without_key(1_773_144_000_000).int for _ in range(2000)]
    assert len(set(made)) == len(made)
    ones, zeros = 0, 0
    for one in made:
        ones |= one
        zeros |= ~one
    random = (0xFFF << 64) | (2**62 - 1)
    assert ones & zeros & (2**80 - 1) == random


def test_a_readable_dev_name_is_one_uuid_and_a_uuid_is_itself() -> None:
    real = uuid4()
    assert dev_uuid(str(real)) == real
    assert dev_uuid("test-user") == dev_uuid("test-user") != dev_uuid("test-user2")
