"""Every mutant still is one: its text occurs in the product, once."""

from __future__ import annotations

import pytest

from tests.mutants.copy import ROOT
from tests.mutants.mutants import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=[one.name for one in MUTANTS])
def test_a_mutant_changes_one_place_of_the_product(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.old != mutant.new
    assert all((ROOT / path).exists() for path in mutant.tests.split())


def test_the_document_lists_them_all() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    section = text.partition("## Rules broken on purpose")[2].partition("\n## ")[0]
    listed = [line[2:] for line in section.splitlines() if line.startswith("- ")]
    assert listed == [one.name for one in MUTANTS]
    assert f"breaks {len(MUTANTS)} rules" in section


def test_there_are_enough_and_no_two_are_the_same() -> None:
    assert len(MUTANTS) >= 52
    assert len({one.name for one in MUTANTS}) == len({one[1:4] for one in MUTANTS}) == len(MUTANTS)
