"""What scripts pack Python unpacks, and the other way round."""

from __future__ import annotations

import re
from struct import Struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.usage import FINGERPRINT_BYTES
from lua import packing
from lua.packing import Counted, Malformed, Rule, Said, State
from tests.lua.header import Script, include, packed_names, read, split_top

COUNTS = st.integers(0, 2**53)
SHORT = st.binary(max_size=255)


def formats(script: Script) -> dict[str, str]:
    """``local A, B = '>..', '>..'`` in a body."""
    found: dict[str, str] = {}
    for names, values in re.findall(r"^local ([A-Z, ]+) =\s+('>.*?)(?: --.*)?$", script.body, re.M):
        pairs = zip(names.split(", "), split_top(values), strict=True)
        found |= {name: value.strip("'") for name, value in pairs}
    return found


def in_python(layout: str) -> str:
    """A layout of Lua's struct in the letters of Python's; strings with a length before them are
    Python's own work."""
    letters = {"I8": "Q", "i8": "q", "c16": "16s", f"c{FINGERPRINT_BYTES}": "8s", "c1": "c"}
    parts = re.findall(r"[A-Za-z]\d*", layout.removesuffix("c0"))
    return ">" + "".join(letters.get(part, part) for part in parts)


@pytest.mark.parametrize(
    ("script", "name", "layout"),
    [
        (read("record"), "DECISION", packing.DECISION),
        (read("record"), "COUNTED", packing.COUNTED),
        (read("record"), "ANSWER", packing.ANSWER),
        (include("quota"), "STATE", packing.STATE),
        (include("quota"), "RULE", packing.RULE),
    ],
    ids=["decision", "counted", "answer", "state", "rule"],
)
def test_both_sides_have_one_layout(script: Script, name: str, layout: Struct) -> None:
    assert in_python(formats(script)[name]) == layout.format


def test_a_receipt_has_the_length_that_is_looked_for_and_the_whole_fingerprint() -> None:
    receipts = include("receipts")
    layout = formats(receipts)["RECEIPT"]
    assert layout.startswith(f">c{FINGERPRINT_BYTES}I8")
    assert Struct(in_python(layout)).size == receipts.constants()["RECEIPT_BYTES"]
    assert packing.STATE.size == include("quota").constants()["STATE_FRONT"]


def test_scripts_that_read_only_the_front_read_the_same_front() -> None:
    record, load = formats(read("record")), formats(read("load"))
    assert record["COUNTED"].startswith(load["COUNTED"])
    assert load["SAID"] == record["SAID"] + "Bc0"
    strings = Said._fields[1:-1]  # between the id, and the payload that is the rest
    assert load["SAID"] == f">c{packing.ID_BYTES}" + "Bc0" * len(strings)
    assert packed_names(read("record"), "EVENT[2] said") == list(Said._fields[: len(strings)])


def test_what_is_packed_is_taken_apart_in_the_order_that_the_header_names() -> None:
    record = read("record")
    taken = re.findall(r"local ([\w, ]+) =\s+unpacked\((\w+),", record.body)
    order = {layout: names.split(", ") for names, layout in taken}
    said = {"place": "partition", "user_place": "user", "pool_place": "pool"}
    decision = packed_names(record, "EVENT[1] decision")
    assert [said.get(one, one) for one in order["DECISION"]] == decision
    assert order["SAID"] == list(Said._fields[:3])
    [counted] = re.findall(r"pack\(COUNTED, (.+?)\)\n", record.body, re.DOTALL)
    words = {
        "now_ms": "recorded_at", "user[STARTS]": "starts",
        "pool and pool[STARTS] or -1": "pool_starts",
        "user[USED]": "used", "pool and pool[USED] or -1": "pool_used",
    }  # fmt: skip
    values = split_top(counted.replace("\n", " "))
    assert [words.get(re.sub(" +", " ", one), one) for one in values] == list(Counted._fields)
    [named] = re.findall(r"quota packs ([\w, \n]+), with", record.head)
    assert named.replace("\n", " ").split(", ") == list(Counted._fields)
    [state] = re.findall(r"local (.+) = struct.unpack\(STATE, state\)", include("quota").body)
    assert state.split(", ") == list(State._fields)


@given(
    st.binary(min_size=16, max_size=16), st.sampled_from([b"", b"f" * 8]),
    st.sampled_from(["calls", "z" * 50]), st.sampled_from([17, 33]), SHORT,
)  # fmt: skip
def test_what_was_said_comes_back(
    usage_id: bytes, fingerprint: bytes, usage_type: str, length: int, payload: bytes
) -> None:
    who = b"w" * length
    raw = packing.pack_said(usage_id, fingerprint, usage_type, who, payload)
    assert packing.unpack_said(raw) == (usage_id, fingerprint, usage_type.encode(), who, payload)


@given(SHORT)
def test_any_bytes_are_said_or_malformed(raw: bytes) -> None:
    try:
        said = packing.unpack_said(raw)
    except Malformed:
        return
    assert len(said.usage_id) == packing.ID_BYTES
    assert 3 + sum(map(len, said)) == len(raw)


@given(st.sampled_from("hswxn"), st.none() | COUNTS, COUNTS, COUNTS, COUNTS)
def test_a_rule_comes_back(
    letter: str, limit: int | None, rate: int, window_us: int, rollover: int
) -> None:
    raw = packing.pack_rule(letter, limit, rate, window_us, rollover)
    assert packing.unpack_rule(raw) == Rule(letter, limit, rate, window_us, rollover)
