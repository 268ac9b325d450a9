"""What identifies a person is found by its form, and what only looks like it is not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import get_args

import pytest

from ledger.domain import phi
from ledger.domain.identifiers import DETECTORS, Identifier
from tests.phi.negatives import NEGATIVES
from tests.phi.positives import POSITIVES, SEEDS

IDENTIFIERS: tuple[Identifier, ...] = get_args(Identifier)


def test_the_corpus_is_as_large_as_promised_and_knows_every_identifier() -> None:
    assert len({text for _, text in POSITIVES.values()}) >= 500
    assert len(set(NEGATIVES.values())) >= 500
    assert SEEDS.keys() == set(IDENTIFIERS) == {one.identifier for one in DETECTORS}


@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_what_identifies_a_person_is_found_and_named(identifier: Identifier) -> None:
    texts = {name: text for name, (one, text) in POSITIVES.items() if one == identifier}
    told = {name: phi.identifier(text) for name, text in texts.items()}
    assert told == dict.fromkeys(texts, identifier)


def test_what_only_looks_like_it_passes_and_is_logged_whole() -> None:
    assert {name: said for name, text in NEGATIVES.items() if (said := phi.identifier(text))} == {}
    assert {name for name, text in NEGATIVES.items() if phi.redacted(text) != text} == set()


def test_the_quick_look_hides_nothing_from_the_detectors() -> None:
    texts = [text for _, text in POSITIVES.values() if text.isascii()] + list(NEGATIVES.values())
    for text in texts:
        whole = next(phi._spans(text, phi.NONE), None)
        assert (phi.identifier(text) is None) == (whole is None), text


@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_what_is_redacted_is_gone_and_the_rest_stays(identifier: Identifier) -> None:
    for seed in SEEDS[identifier]:
        said = phi.redacted(f"before {seed} after")
        assert said.startswith("before ") and said.endswith(" after")
        assert phi.REDACTED in said and phi.identifier(said) is None, seed


def test_what_is_allowed_in_a_place_is_not_found_there() -> None:
    assert phi.identifier("bert-2018-10-31", {"date"}) is None
    assert phi.identifier("bert-2018-10-31 123-45-6789", {"date"}) == "social security number"


# For each a text of any length that a careless pattern would go through again and again.
HOSTILE: dict[str, Callable[[int], str]] = {
    "letters": lambda n: "a" * n,
    "capitals": lambda n: "A" * n,
    "digits": lambda n: "4" * n,
    "digits and dashes": lambda n: "1-" * (n // 2),
    "digits and spaces": lambda n: "1 " * (n // 2),
    "threes and dashes": lambda n: "415-" * (n // 4),
    "dates without an end": lambda n: "1961-04-" * (n // 8),
    "dots": lambda n: "1." * (n // 2),
    "colons": lambda n: "a:" * (n // 2),
    "at signs": lambda n: "a@" * (n // 2),
    "an address without an end": lambda n: "a@" + "b-" * (n // 2),
    "hosts without an end": lambda n: "a@" + "b." * (n // 2),
    "spaces": lambda n: "mrn" + " " * n,
    "labels": lambda n: "patient name " * (n // 13),
    "a street without an end": lambda n: "12 " + "Oak " * (n // 4),
    "months": lambda n: "Apr " * (n // 4),
    "files without an end": lambda n: "photo " * (n // 6),
    "zero-width": lambda n: "1\u200b" * (n // 2),
    "one word of many": lambda n: "a@b.co," * (n // 7),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_time_grows_with_the_text_and_no_faster(hostile: str) -> None:
    text, longer = (HOSTILE[hostile](size) for size in (2_000, 8_000))

    def took(one: str) -> float:
        best = []
        for _ in range(3):
            phi._may_hold.cache_clear()
            began = time.thread_time()
            phi.identifier(one)
            phi.redacted(one)
            best.append(time.thread_time() - began)
        return min(best)

    # Four times the text: 4 where time is in proportion, 16 where it grows with the square. The
    # constant is for what a clock of milliseconds cannot tell.
    assert took(longer) < 9 * took(text) + 0.005
