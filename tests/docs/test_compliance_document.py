"""docs/compliance.md names what the code looks for, and its examples are decided as it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from gateway.agreements import REMEMBERED_S
from gateway.metadata import MAX_KEYS, NOTE, NOTE_LENGTH
from ledger.domain.identifiers import Identifier
from ledger.domain.metadata_keys import BUILT_IN, MOST_ADDED, declared
from ledger.domain.phi import identifier

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "compliance.md").read_text()
ROWS = [
    [cell.strip() for cell in row.split("|")[1:-1]]
    for row in re.findall(r"^\|.*\|$", TEXT.partition("| of the 18 |")[2], re.M)[1:]
]


def test_the_table_has_every_identifier_that_is_looked_for() -> None:
    named = {one for row in ROWS for one in row[1].split(", ")}
    assert set(get_args(Identifier)) == named - {""}


@pytest.mark.parametrize(
    ("said", "example"),
    [
        (row[1], example)
        for row in ROWS
        for example in re.findall(r"`([^`]+)`", row[2])
        if "…" not in example and "tld" not in example and not example.startswith((",", "."))
    ],
)
def test_an_example_of_a_form_is_found_as_the_table_says(said: str, example: str) -> None:
    whole = {"https://": "https://example.com", "www.": "www.example.com"}.get(example, example)
    assert identifier(whole) in said.split(", ")


def test_the_page_names_every_key_and_the_numbers_of_the_code() -> None:
    table = TEXT.partition("| key | holds |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+)`", table)) == {*BUILT_IN, NOTE}
    assert f"1 to {NOTE_LENGTH} printable" in TEXT and f"at most {MAX_KEYS} of" in TEXT
    assert f"within {REMEMBERED_S} seconds" in TEXT and f"up to {MOST_ADDED} keys" in TEXT


def test_the_declaration_is_one_that_is_taken() -> None:
    [example] = re.findall(r"^METADATA_KEYS=(.+)$", TEXT, re.M)
    assert list(declared(example)) == ["ward", "shift", "beds", "case_ref"]
