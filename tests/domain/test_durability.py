"""What a server is worth: the profile it keeps, and what is said of each weakness."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ledger.domain.durability import SILENT_S, Profile, Server, Wanted, judge, refusal, worst

INFO = {
    "redis_version": "7.2.4",
    "role": "master",
    "aof_enabled": "1",
    "aof_rewrite_in_progress": "0",
    "aof_rewrite_scheduled": "0",
    "aof_last_bgrewrite_status": "ok",
    "aof_last_write_status": "ok",
    "maxmemory_policy": "noeviction",
    "maxmemory": "1000",
    "used_memory": "1100",
    "mem_not_counted_for_evict": "100",
    "slave0": "ip=10.0.0.1,port=6379,state=online,offset=70,lag=0,type=replica",
    "slave1": f"ip=10.0.0.2,port=6379,state=online,offset=70,lag={SILENT_S}",
    "slave2": f"ip=10.0.0.3,port=6379,state=online,offset=9,lag={SILENT_S + 1}",
    "slave3": "ip=10.0.0.4,port=6379,state=wait_bgsave,offset=0,lag=0",
    "slave_read_only": "1",
}
CONFIG = {
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "repl-backlog-ttl": "0",
}
SOUND = Server.of(INFO, CONFIG)
DEV_FAST, DEFAULT = Wanted(Profile.DEV_FAST), Wanted(Profile.DEFAULT)
TWO, THREE = Wanted(Profile.REPLICATED, 2), Wanted(Profile.REPLICATED, 3)


def changed(**fields: Any) -> Server:
    return msgspec.structs.replace(SOUND, **fields)


def test_replies_of_redis_are_read() -> None:
    assert Server.of(INFO, CONFIG) == Server(
        primary=True,
        version=(7, 2),
        appendonly=True,
        rewriting=False,
        rewrites_ok=True,
        writes_ok=True,
        fsync="always",
        unsynced_rewrite=False,
        eviction="noeviction",
        full=False,
        backlog_ttl_s=0,
        in_sync=2,  # not the one that is silent, nor the one that is still given its first copy
    )


@pytest.mark.parametrize(
    ("name", "value", "change"),
    [
        ("role", "slave", {"primary": False}),
        ("aof_enabled", "0", {"appendonly": False}),
        ("aof_rewrite_in_progress", "1", {"rewriting": True}),
        ("aof_rewrite_scheduled", "1", {"rewriting": True}),
        ("aof_last_bgrewrite_status", "err", {"rewrites_ok": False}),
        ("aof_last_write_status", "err", {"writes_ok": False}),
        ("maxmemory_policy", "allkeys-lru", {"eviction": "allkeys-lru"}),
        ("used_memory", "1101", {"full": True}),
        ("maxmemory", "0", {"full": False}),
        ("redis_version", "7.0.15", {"version": (7, 0)}),
    ],
)
def test_each_line_of_info_counts(name: str, value: str, change: dict[str, Any]) -> None:
    assert Server.of(INFO | {name: value}, CONFIG) == changed(**change)


@pytest.mark.parametrize(
    ("wanted", "in_force"),
    [
        (DEV_FAST, Profile.DEFAULT),
        (DEFAULT, Profile.DEFAULT),  # nobody waits for replicas unless it is asked for
        (TWO, Profile.REPLICATED),
        (THREE, Profile.DEFAULT),
    ],
)
def test_a_sound_server_keeps_what_can_be_asked_of_it(wanted: Wanted, in_force: Profile) -> None:
    verdict = judge(SOUND, wanted)
    assert (verdict.in_force, verdict.kept) == (in_force, in_force >= wanted.profile)
    assert bool(verdict.reasons) is not verdict.kept


@pytest.mark.parametrize(
    ("change", "left", "way_out"),
    [
        ({"primary": False}, Profile.NONE, "point it at the primary"),
        ({"eviction": "volatile-lru"}, Profile.NONE, "maxmemory-policy noeviction"),
        ({"appendonly": False}, Profile.NONE, "CONFIG SET appendonly yes"),
        ({"fsync": "no"}, Profile.NONE, "CONFIG SET appendfsync always"),
        ({"fsync": "everysec"}, Profile.DEV_FAST, "CONFIG SET appendfsync always"),
        ({"unsynced_rewrite": True}, Profile.NONE, "no-appendfsync-on-rewrite no"),
        ({"writes_ok": False}, Profile.NONE, "look at its disk"),
        ({"fsync": None, "unsynced_rewrite": None}, Profile.UNKNOWN, "cannot be checked"),
        ({"version": (7, 0)}, Profile.DEFAULT, "upgrade"),
        ({"in_sync": 1}, Profile.DEFAULT, "start them"),
    ],
)
def test_a_weakness_leaves_a_lesser_profile_and_names_the_way_out(
    change: dict[str, Any], left: Profile, way_out: str
) -> None:
    verdict = judge(changed(**change), TWO)
    assert (verdict.in_force, verdict.kept) == (left, False)
    [line] = verdict.reasons
    assert way_out in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("change", "word", "stopped"),
    [
        ({"full": True}, "maxmemory", True),
        ({"rewrites_ok": False}, "BGREWRITEAOF", False),
        ({"backlog_ttl_s": 3600}, "repl-backlog-ttl 0", False),
    ],
)
def test_what_needs_care_is_said_and_lowers_nothing(
    change: dict[str, Any], word: str, stopped: bool
) -> None:
    verdict = judge(changed(**change), TWO)
    assert (verdict.in_force, verdict.kept) == (Profile.REPLICATED, True)
    [line] = verdict.reasons
    assert word in line
    assert verdict.stopped is stopped


def test_what_the_setting_does_not_ask_for_is_no_reason() -> None:
    weak = changed(fsync="everysec", version=(7, 0), in_sync=0, backlog_ttl_s=3600)
    verdict = judge(weak, DEV_FAST)
    assert (verdict.in_force, verdict.reasons) == (Profile.DEV_FAST, [])


def test_the_worst_is_said_first() -> None:
    verdict = judge(changed(full=True, in_sync=0, fsync="everysec", eviction="allkeys-lfu"), TWO)
    words = ("allkeys-lfu", "everysec", "replicas", "maxmemory is reached")
    assert len(verdict.reasons) == len(words)
    assert all(word in line for word, line in zip(words, verdict.reasons, strict=True))


def test_of_several_servers_the_worst_is_in_force_and_each_line_names_its_own() -> None:
    every = {"a:1": judge(SOUND, TWO), "b:2": judge(changed(in_sync=1), TWO)}
    both = worst(every | {"c:3": judge(changed(full=True), TWO)})
    assert (both.in_force, both.kept, both.stopped) == (Profile.DEFAULT, False, False)
    [weak, full] = both.reasons
    assert weak.startswith("redis b:2: 1 of 2 replicas")
    assert full.startswith("redis c:3: maxmemory is reached")
    assert worst({"c:3": judge(changed(full=True), TWO)}).stopped


def test_a_file_that_was_switched_on_counts_after_its_first_rewrite() -> None:
    off, first = changed(appendonly=False), changed(rewriting=True)
    looks = [off, first, first, SOUND, first]
    before, seen = None, []
    for look in looks:
        before = look.after(before)
        seen.append(before.appendonly)
    assert seen == [False, False, False, True, True]
    assert first.after(None).appendonly


def test_production_is_refused_in_one_line_below_the_setting_only() -> None:
    line = refusal(judge(changed(fsync="everysec", in_sync=0), TWO))
    assert line is not None
    assert line.startswith("DURABILITY: is replicated, in force is dev-fast: redis: appendfsync")
    assert "\n" not in line
    assert refusal(judge(SOUND, TWO)) is None
    assert refusal(judge(changed(full=True), TWO)) is None  # it starts, and is not ready
