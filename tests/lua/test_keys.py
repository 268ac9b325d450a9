"""A subject as bytes, in words and as the ids that it is made of."""

from __future__ import annotations

from uuid import UUID

import pytest

from lua import keys
from lua.keys import Account

USER, ORGANIZATION = UUID(int=1), UUID(int=2)
ALONE, MEMBER = Account(USER).who, Account(USER, ORGANIZATION).who
POOL = MEMBER[:17]


@pytest.mark.parametrize(
    ("subject", "words", "ids"),
    [
        (ALONE, f"user:{USER}", (USER, None)),
        (POOL, f"org:{ORGANIZATION}", (None, ORGANIZATION)),
        (MEMBER, f"org:{ORGANIZATION}:user:{USER}", (USER, ORGANIZATION)),
    ],
)
def test_words_and_ids_say_who_a_subject_is(
    subject: bytes, words: str, ids: tuple[UUID | None, UUID | None]
) -> None:
    assert keys.subject_text(subject) == words
    assert keys.subject_of(words) == subject
    assert keys.ids_of(subject) == ids


def test_what_a_member_uses_counts_for_its_pool_as_well() -> None:
    assert keys.subjects_of(ALONE) == (ALONE,)
    assert keys.subjects_of(MEMBER) == (MEMBER, POOL)
