"""What a script is given: header, body and wrapper say the same, or a bill is wrong."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import pytest

from lua import keys, loader
from lua.packing import ANSWER, DECISION, NONE, Said, pack_rule, unpack_said
from lua.record_call import QUOTA_TTL_S
from lua.scripts import NAMES, Scripts
from lua.types import Event, Limit, LookedUp
from tests.lua.header import SHEBANG, include, packed_names, read, split_top, with_includes
from tests.lua.kit import MEMBER, OTHER_MEMBER, POOL, USER

PARTITION = 7
EVERY_KEY = {
    "stream": keys.stream(PARTITION),
    "meta": keys.meta(PARTITION),
    "receipts": keys.receipts(PARTITION),
    "user_quota": keys.quota(PARTITION, MEMBER),
    "pool_quota": keys.quota(PARTITION, POOL),
    "quota": keys.quota(PARTITION, MEMBER),
    "quotas": keys.quota(PARTITION, MEMBER),  # the first of any number
}
# A value of its own for every keyword argument of every wrapper.
SAID: dict[str, Any] = {
    "enforce": True, "cap": 11, "usage_type": "calls", "units": 12, "epoch": 13, "version": 14,
    "starts": 15, "ends": 16, "cursor": "17-0", "through": "18-0", "terms": b"19",
    "blocked": "paused", "after": "20-0", "count": 21, "replid": "22", "drained": 23,
    "row_replid": "24", "acked": "25-0", "offset": 26, "revision": 27, "touch": True,
    "decided": True, "pool_version": 28, "control": b"29", "not_before": 30,
    "good_until": 31, "said": b"32", "pool_starts": 33, "period": 34,
}  # fmt: skip
REPLIES: dict[str, Any] = {
    "check": [0, 1, [0]],
    "quota": [0, 1, 0, [], []],
    "load": 0,
    "unload": 0,
    "correct": [0, 1, -1, 0],
    "supersede": [0, b"1-0"],
    "tally": [0, [], []],
    "read": [0, b"r", b"1", b"0-0", b"0-0"],
    "trim": 0,
    "recover": [0, b"1", b"r", b"0-0"],
}


class Recording:
    """A connection that keeps what it is told to run. A record call is answered with an id per
    partition and its number to each event."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.keys: list[str] = []
        self.args: list[Any] = []
        self.beside: Sequence[Any] = ()

    async def evalsha(self, sha: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        self.keys, self.args = list(keys), list(args)
        if self.reply is None:
            script = read("record")
            slots, before = len(script.names("EVENT")), len(script.names("ARGV"))
            ids = [b"%d-0" % at for at in range(args[0])]
            return [ids, *self.reply_to((len(args) - before) // slots)]
        return self.reply

    @staticmethod
    def reply_to(events: int) -> list[bytes]:
        return [ANSWER.pack(0, at, NONE, 0, 0, 0, 0, 0) for at in range(events)]

    async def eval(self, source: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        raise AssertionError("not asked to")

    async def transaction(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        (_, sha, count, *said), self.beside = commands
        return [await self.evalsha(sha, said[:count], said[count:]), []]


def own_parameters(name: str) -> list[str]:
    """The wrapper's keyword-only parameters, as far as they are single arguments."""
    parameters = inspect.signature(getattr(Scripts, name)).parameters.values()
    return [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.name != "limits"]


async def sent(name: str, *positional: Any, **extra: Any) -> Recording:
    recording = Recording(REPLIES.get(name))
    said = {parameter: SAID[parameter] for parameter in own_parameters(name)}
    place = () if name == "record" else (PARTITION,)
    await getattr(Scripts(recording), name)(*place, *positional, **said, **extra)
    return recording


def as_sent(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def test_every_script_file_has_a_wrapper_and_every_include_is_used() -> None:
    folder = files("lua")
    scripts = {one.name for one in folder.iterdir() if one.name.endswith(".lua")}
    assert scripts == {f"{name}.lua" for name in NAMES}
    for name in NAMES:
        assert inspect.iscoroutinefunction(getattr(Scripts, name))
    includes = {one.name for one in folder.joinpath("include").iterdir()}
    text = "".join(read(name).body for name in NAMES) + "".join(
        include(name.removesuffix(".lua")).body for name in includes
    )
    assert includes == {f"{name}.lua" for name in re.findall(r'--- @include "(\w+)"', text)}


@pytest.mark.parametrize("name", NAMES)
def test_the_header_names_what_the_body_uses_and_nothing_else(name: str) -> None:
    script = read(name)
    if name == "record":  # three for every partition, and then the counters
        assert script.uses(r"KEYS\[") == set()
        assert script.uses(r"KEYS\[at \+ ") == {1, 2, 3}
        assert script.names("KEYS")[3:] == ["counters"]
        taken = set(re.findall(r"KEYS\[(.+?)\]", script.body))
        assert taken == {"at + 1", "at + 2", "at + 3", "counters_before + place"}
    else:
        named = script.names("KEYS")
        if f"KEYS[{len(named)}] quotas..." in script.head:  # any number of them
            assert f"for i = {len(named)}, #KEYS do" in script.body
            assert "KEYS[i]" in script.body
            named.pop()
        assert script.uses(r"KEYS\[") == set(range(1, len(named) + 1))
    assert script.uses(r"ARGV\[") == set(range(1, len(script.names("ARGV")) + 1))
    slots = script.names("EVENT") or script.names("LIMIT")
    assert script.uses(r"ARGV\[at \+ ") == set(range(1, len(slots) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_a_local_that_holds_an_argument_carries_its_name(name: str) -> None:
    script = read(name)
    short = {"today": "receipts", "of_user": "user_quota", "of_pool": "pool_quota"}
    if name == "check":
        short["user"] = "user_quota"
    short["key"] = {"load": "quota", "recover": "meta"}.get(name, "")
    slots = script.names("EVENT") or script.names("LIMIT")
    for argument, names in (
        (r"KEYS\[", script.names("KEYS")),
        (r"KEYS\[at \+ ", script.names("KEYS")),
        (r"ARGV\[", script.names("ARGV")),
        (r"ARGV\[at \+ ", slots),
    ):
        for local, number in script.locals_of(argument):
            assert names[number - 1] == short.get(local, local), f"local {local}"


def test_the_checks_above_see_the_locals_they_are_about() -> None:
    assert read("record").locals_of(r"ARGV\[") == [
        ("partitions", 1), ("enforce", 2), ("cap", 3), ("ttl", 4)
    ]  # fmt: skip
    assert read("load").locals_of(r"ARGV\[at \+ ") == [("usage_type", 1)]
    assert ("version", 3) in read("load").locals_of(r"ARGV\[")
    assert ("cursor", 3) in read("recover").locals_of(r"ARGV\[")
    assert read("trim").locals_of(r"ARGV\[") == [("drained", 2), ("through", 3)]
    assert read("load").locals_of(r"KEYS\[") == [("stream", 1), ("key", 3), ("meta", 2)]
    assert read("check").locals_of(r"KEYS\[") == [("meta", 1), ("user", 2)]


def test_a_partitions_keys_are_taken_in_the_headers_order() -> None:
    record = read("record")
    taken = record.locals_of(r"KEYS\[at \+ ")
    names = {"today": "receipts"}
    assert sorted((number, names.get(name, name)) for name, number in taken) == list(
        enumerate(record.names("KEYS")[:3], 1)
    )


def test_the_places_in_an_event_are_used_as_the_header_says() -> None:
    record = read("record")
    counters = re.findall(r"(\w+)(?:, \w+)* = counter\((.+?), usage_type, meta\)", record.body)
    assert counters == [("user", "user_place"), ("pool", "pool_place")]
    partitions = re.findall(r"(\w+) = partition\((.+)\)$", record.body, re.MULTILINE)
    assert partitions == [("part", "place")]
    assert "decide(ARGV[at + 1], ARGV[at + 2])" in record.body


def test_a_counter_is_made_in_the_order_of_its_slots() -> None:
    quota = include("quota")
    slots = {name: one for name, one in quota.constants().items() if name != "STATE_FRONT"}
    assert list(slots.values()) == list(range(1, len(slots) + 1))
    [made] = re.findall(r"return \{\n(    letter.+?)\n  \}", quota.body, re.DOTALL)
    said = {"raw[2]": "terms", "limit >= 0 and limit": "limit", "whole(raw[4])": "used",
            "blocked": "blocked_by", "usage_type": "type", "false": "text"}  # fmt: skip
    values = [one for one in split_top(made.replace("\n", " ")) if one]
    assert [said.get(one, one).upper() for one in values] == list(slots)
    [fields] = re.findall(r"'HMGET', key, ('state'.+)\)", quota.body)
    assert [one.partition("'")[2].partition("'")[0] for one in split_top(fields)] == [
        "state", "terms", "rule:", "used:"
    ]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_of_a_script_is_not_another_number_in_what_it_includes(name: str) -> None:
    """The script's own would hide it."""
    found: dict[str, int] = {}
    for script in with_includes(name):
        for constant, number in script.constants().items():
            assert found.setdefault(constant, number) == number, constant


@pytest.mark.parametrize("name", NAMES)
async def test_the_wrapper_sends_the_arguments_that_the_header_names_in_its_order(
    name: str,
) -> None:
    script = read(name)
    values = SAID | {"ttl": QUOTA_TTL_S, "subject": MEMBER, "partitions": 1}
    positional: tuple[Any, ...] = {
        "record": ([Event(PARTITION, MEMBER, b"", b"", "", 1, None, b"")],),
        "check": (MEMBER, POOL),
        "quota": (MEMBER, POOL),
        "load": (MEMBER,),
        "correct": (MEMBER, POOL),
        "unload": ([keys.subject_text(MEMBER)],),
        "supersede": ({MEMBER: 31},),
        "tally": ([keys.quota(PARTITION, MEMBER)],),
    }.get(name, ())
    extra = {"limits": ()} if name == "load" else {}
    recording = await sent(name, *positional, **extra)
    sent_args = recording.args[: len(script.names("ARGV"))]
    assert sent_args == [as_sent(values[argument]) for argument in script.names("ARGV")]
    further = recording.args[len(sent_args) :]
    assert name == "record" or further == ([31] if name == "supersede" else [])
    named = [one for one in script.names("KEYS") if one != "counters"]
    assert recording.keys[: len(named)] == [EVERY_KEY[one] for one in named]
    assert recording.keys[len(named) :] == (
        [keys.quota(PARTITION, MEMBER), keys.quota(PARTITION, POOL)] if name == "record" else []
    )
    argv = [one for one in script.names("ARGV") if one not in ("ttl", "subject", "partitions")]
    assert own_parameters(name) == argv + {"read": ["after", "count"]}.get(name, [])


async def test_entries_are_read_beside_the_script() -> None:
    recording = await sent("read")
    after, count = SAID["after"], SAID["count"]
    assert recording.beside == ("XRANGE", EVERY_KEY["stream"], f"({after}", "+", "COUNT", count)


@pytest.mark.parametrize("name", ["check", "quota"])
async def test_a_personal_account_has_no_pool_key(name: str) -> None:
    recording = await sent(name, USER, None)
    assert recording.keys == [EVERY_KEY["meta"], keys.quota(PARTITION, USER)]
    assert "absent for a personal account" in read(name).line("KEYS[3] pool_quota")


async def test_events_are_sent_in_slots_as_the_header_names_them() -> None:
    script = read("record")
    events = [
        Event(PARTITION, MEMBER, b"i" * 16, b"f" * 8, "calls", 5, 6, b"p", LookedUp.UNKNOWN),
        Event(PARTITION, OTHER_MEMBER, b"j" * 16, b"", "tokens", 7, None, b"q"),
        Event(2, USER, b"k" * 16, b"", "calls", 8, None, b"r", LookedUp.UNREACHABLE),
        Event(PARTITION, MEMBER, b"l" * 16, b"g" * 8, "calls", 9, 10, b"s"),
        Event(31, MEMBER, b"m" * 16, b"", "calls", 9, 10, b"t"),
        Event(PARTITION, MEMBER, b"n" * 16, b"", "tokens", 1, None, b"u"),
    ]
    partitions = [PARTITION, 2, 31]
    recording = await sent("record", events)
    assert script.names("EVENT") == ["decision", "said"]
    before = len(script.names("ARGV"))
    decisions, saids = recording.args[before::2], recording.args[before + 1 :: 2]
    names = packed_names(script, "EVENT[1] decision")
    rows = [dict(zip(names, DECISION.unpack(one), strict=True)) for one in decisions]
    for row, said in zip(rows, saids, strict=True):
        row |= unpack_said(said)._asdict()
    assert len(rows) == len(events)
    assert recording.args[script.names("ARGV").index("partitions")] == len(partitions)
    counters_before = len(partitions) * script.names("KEYS").index("counters")
    assert recording.keys[:counters_before] == [
        key for one in partitions for key in (keys.stream(one), keys.meta(one), keys.receipts(one))
    ]
    counters = recording.keys[counters_before:]
    places: dict[int, tuple[str, str]] = {}  # of each counter: its quota and usage type
    for row, event in zip(rows, events, strict=True):
        assert partitions[row["partition"] - 1] == event.partition
        row["partition"] = event.partition
        subjects = {"user": event.who, "pool": keys.pool_of(event.who)}
        for scope, subject in subjects.items():
            place = row.pop(scope)
            if subject is None:
                assert place == 0
                continue
            quota = keys.quota(event.partition, subject)
            assert counters[place - 1] == quota
            one = (quota, event.usage_type)
            assert places.setdefault(place, one) == one
        row["usage_type"] = row["usage_type"].decode()
        assert row.pop("timed") == (event.occurred_at is not None)
        assert row.pop("occurred_at") == (event.occurred_at or 0)
        assert row == {name: getattr(event, name) for name in row}
    assert sorted(places) == list(range(1, len(counters) + 1))
    assert len(set(places.values())) == len(places) == 8
    assert [counters.count(keys.quota(PARTITION, one)) for one in (MEMBER, POOL)] == [2, 2]
    assert {*names, *Said._fields} == {*Event.__struct_fields__, "user", "pool", "timed"}


async def test_a_record_reply_is_read_as_ids_of_the_partitions_and_an_answer_per_event() -> None:
    recording = Recording(None)
    said = [Event(one, USER, b"", b"", "calls", 1, None, b"") for one in (9, 4, 9, 0)]
    recorded = await Scripts(recording).record(said, enforce=True, cap=1)
    assert recorded.last_ids == {9: "0-0", 4: "1-0", 0: "2-0"}
    assert [one.recorded_at for one in recorded.answers] == [0, 1, 2, 3]
    recording.reply = [[b"", b"5-0", b""], *recording.reply_to(4)]
    assert (await Scripts(recording).record(said, enforce=True, cap=1)).last_ids == {4: "5-0"}


async def test_limits_are_sent_in_slots_as_the_header_names_them() -> None:
    script = read("load")
    limits = [Limit("calls", "h", 5, 6, 7, 8), Limit("tokens", "n", None, 0, 0, 0)]
    recording = await sent("load", MEMBER, limits=limits)
    assert script.names("LIMIT") == ["usage_type", "rule", "used"]
    assert recording.args[len(script.names("ARGV")) :] == [
        "calls", pack_rule("h", 5, 6, 7), 8, "tokens", pack_rule("n", None, 0, 0), 0
    ]  # fmt: skip


def test_the_body_counts_keys_arguments_and_slots_as_the_header_does() -> None:
    record, load = read("record"), read("load")
    assert record.constants()["KEYS_OF_PARTITION"] == record.names("KEYS").index("counters")
    assert len(keys.of_partition(0)) == record.constants()["KEYS_OF_PARTITION"]
    assert record.constants()["ARGS_BEFORE"] == len(record.names("ARGV"))
    assert record.constants()["SLOTS"] == len(record.names("EVENT"))
    assert load.constants()["ARGS_BEFORE"] == len(load.names("ARGV"))
    assert load.constants()["SLOTS"] == len(load.names("LIMIT"))


def test_only_what_makes_room_again_may_run_when_memory_is_full() -> None:
    flagged = {name for name in NAMES if loader.source(name).startswith("#!")}
    assert flagged == {"trim", "recover"}
    for name in flagged:
        assert loader.source(name).startswith(SHEBANG)
        assert loader.source(name).count("#!") == 1


def test_every_key_of_a_script_is_in_one_cluster_slot() -> None:
    for key in EVERY_KEY.values():
        assert re.findall(r"\{(.*?)\}", key) == ["p07"]
