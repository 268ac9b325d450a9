"""What a script answers: header, body, enums and structs say the same."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from ledger.domain import quantity, usage
from lua.record_call import QUOTA_TTL_S
from lua.types import (
    Answer,
    CheckAnswer,
    Checked,
    LoadOutcome,
    LookedUp,
    Missing,
    Outcome,
    QuotaHashes,
    Recorded,
    Recovery,
    RecoveryOutcome,
    SupersedeOutcome,
    Tail,
    TallyOutcome,
    UnloadOutcome,
)
from tests.lua.header import include, read, split_top

RECORD_OUTCOMES = {name: int(one) for name, one in Outcome.__members__.items() if name != "ALLOWED"}
CHECK_OUTCOMES = (
    {"ALLOWED": int(Outcome.RECORDED)}
    | {
        name: RECORD_OUTCOMES[name]
        for name in ("DENIED", "RATE_LIMITED", "MISS", "OVERFLOW", "BLOCKED")
    }
)  # fmt: skip
CORRECT_OUTCOMES = {
    name: RECORD_OUTCOMES[name]
    for name in ("RECORDED", "REPLAYED", "CONFLICT", "FULL", "OVERFLOW", "FENCED")
}


@pytest.mark.parametrize(
    ("name", "enum"),
    [
        ("record", RECORD_OUTCOMES),
        ("correct", CORRECT_OUTCOMES),
        ("check", CHECK_OUTCOMES),
        ("load", {one.name: int(one) for one in LoadOutcome}),
        ("unload", {one.name: int(one) for one in UnloadOutcome}),
        ("supersede", {one.name: int(one) for one in SupersedeOutcome}),
        ("tally", {one.name: int(one) for one in TallyOutcome}),
        ("recover", {one.name: int(one) for one in RecoveryOutcome}),
    ],
)
def test_outcomes_are_the_same_in_header_body_and_enum(name: str, enum: dict[str, int]) -> None:
    script = read(name)
    assert script.said() == enum
    constants = script.constants()
    assert {key: constants.get(key) for key in enum} == enum
    others = {"KEYS_OF_PARTITION", "ARGS_BEFORE", "SLOTS", "TAIL", "OLDEST_MS"}
    others |= {"NEWEST_MS", "FORGETFUL_MS", "REFRESH_MS"}
    assert constants.keys() - enum.keys() <= others
    returned = set(re.findall(r"return (?:refused or )?\{? ?([A-Z_]+)\b", script.body))
    returned |= set(re.findall(r"pack\(ANSWER, ([A-Z_]+),", script.body))
    returned |= set(re.findall(r"refused = looked_up == 0 and ([A-Z_]+)", script.body))
    assert returned == set(enum)


def test_scripts_without_outcomes_have_no_outcome_constants() -> None:
    for name in ("quota", "read", "trim"):
        assert read(name).said() == read(name).constants() == {}


@pytest.mark.parametrize(("name", "struct"), [("record", Answer), ("check", CheckAnswer)])
def test_an_answers_fields_are_those_of_the_header_in_order(name: str, struct: Any) -> None:
    assert list(struct.__struct_fields__) == read(name).names("ANSWER")


def test_every_answer_of_a_body_fits_the_answers_fields() -> None:
    fields = read("record").names("ANSWER")[:-1]  # the detail is not packed
    packed = re.findall(r"pack\(ANSWER, (.*?)\)\n", read("record").body + "\n", re.DOTALL)
    packed = [one.partition("), missing_of")[0] for one in packed]
    assert len(packed) == 5
    for answer in packed:
        assert len(split_top(answer.replace("\n", " "))) == len(fields), answer
    flat = re.sub(r"\n\s*", " ", read("check").body)
    answers = re.findall(r"return \{ ([A-Z_]+.*?) \}(?= end| if|$|\s|\))", flat)
    assert len(answers) == len(re.findall(r"\{ [A-Z_]{3}", flat)) >= 6
    for answer in answers:
        assert len(split_top(answer)) <= len(read("check").names("ANSWER")), answer


@pytest.mark.parametrize(
    ("name", "struct", "renamed"),
    [
        ("check", Checked, {"ANSWER": "answer"}),
        ("quota", QuotaHashes, {}),
        ("read", Tail, {}),
        ("recover", Recovery, {}),
    ],
)
def test_a_replys_fields_are_those_of_the_header_in_order(
    name: str, struct: Any, renamed: dict[str, str]
) -> None:
    said = [renamed.get(one, one) for one in read(name).line("REPLY").split(", ")]
    if name != "recover":
        assert said.pop(0) == "fenced"
    said += ["entries"] if name == "read" else []  # of the XRANGE beside it
    assert said == list(struct.__struct_fields__)


def test_a_record_reply_has_the_ids_first_and_then_the_answers() -> None:
    assert read("record").line("REPLY") == "last_ids, one ANSWER per event"
    assert Recorded.__struct_fields__ == ("answers", "last_ids")


def test_single_replies_are_named() -> None:
    assert read("load").line("REPLY") == "outcome"
    assert read("trim").line("REPLY") == "trimmed"


def test_details_in_words_are_the_flags_of_the_wrapper() -> None:
    for name in ("record", "check", "quota"):
        [said] = re.findall(r"(?:MISS|missing): ([^;]+)", read(name).head.replace("MISS: now", ""))
        assert re.findall(r"(\d) (\w+)", said)[:3] == [
            (str(int(Missing.USER)), "user"),
            (str(int(Missing.POOL)), "pool"),
            (str(int(Missing.USER | Missing.POOL)), "both"),
        ]
    [looked_up] = re.findall(r"looked_up: ([^\0]+?)\n\n", read("record").head)
    assert re.findall(r"(\d) ", looked_up) == [str(int(one)) for one in LookedUp]
    assert list(LookedUp) == [LookedUp.NOT_YET, LookedUp.UNKNOWN, LookedUp.UNREACHABLE]


def test_numbers_that_python_and_lua_share_are_equal() -> None:
    record = read("record").constants()
    assert include("verdict").constants()["MAX_UNITS"] == quantity.MAX_UNITS
    assert QUOTA_TTL_S == 24 * 3600
    assert (record["OLDEST_MS"], record["NEWEST_MS"]) == (35 * 86_400_000, 5 * 60_000)
    assert record["REFRESH_MS"] == 3_600_000
    receipts = include("receipts").constants()
    assert receipts["RECEIPT_TTL_S"] * 1000 == 2 * receipts["RECEIPT_DAY_MS"] == 2 * 86_400_000


def test_the_entry_has_the_fields_that_the_header_names_and_the_ledger_reads() -> None:
    script = read("record")
    [named] = re.findall(r"^Entry: ([\w, ]+);", script.head, re.MULTILINE)
    [xadd] = re.findall(r"'XADD', part\.stream, '\*', (.*?)\)\n", script.body, re.DOTALL)
    appended = [part.strip("'") for part in split_top(xadd.replace("\n", " "))[::2]]
    assert appended == named.split(", ")
    read_back = re.findall(r'fields\["(\w+)"\]', inspect.getsource(usage.parse_entry))
    assert set(read_back) == {*appended, "period"}
    [of_correction] = re.findall(
        r"'XADD', stream, '\*', (.*?)\)\n", read("correct").body, re.DOTALL
    )
    fields = [part.strip("'") for part in split_top(of_correction.replace("\n", " "))[::2]]
    assert fields == [*appended, "period"]
    # The load script reads the name of the first field, its value, and that of the second.
    assert "local name, said, _, counted = unpack(entry[2])" in read("load").body
    assert appended[:2] == ["event", "quota"]
    assert "name ~= 'event'" in read("load").body
