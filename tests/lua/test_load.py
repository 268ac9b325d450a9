"""Loading writes a quota from a snapshot, unless something newer has overtaken it."""

from __future__ import annotations

from typing import Any

import pytest

from lua.types import Limit, LoadOutcome, Outcome
from tests.lua.kit import (
    DAY_MS,
    MEMBER,
    NOON_MS,
    OTHER_MEMBER,
    PARTITION,
    POOL,
    TERMS,
    USER,
    Bench,
    event,
    limit,
)

LOADED, RETRY = LoadOutcome.LOADED, LoadOutcome.RETRY
PERIOD = {"starts": NOON_MS - DAY_MS, "ends": NOON_MS + DAY_MS}


async def test_a_snapshot_becomes_a_quota_with_a_days_life(bench: Bench) -> None:
    assert await bench.load(USER, limit(most=10, used=4), limit("tokens", used=0)) is LOADED
    fields = await bench.hash(bench.quota_key(USER))
    assert (fields["limit:calls"], fields["used:calls"]) == (b"h10", b"4")
    assert not fields.keys() & {"used:tokens", "rate:calls", "blocked"}
    assert 86_000 < await bench.life(USER) <= 86_400
    assert (await bench.check(7)).outcome is Outcome.DENIED
    assert (await bench.check(6)).outcome is Outcome.ALLOWED


@pytest.mark.parametrize(
    "stale",
    [
        {"epoch": 1},
        {"epoch": 3},
        {"cursor": "8-9"},
        {"cursor": "7-100"},
        {"starts": NOON_MS + 1},
        {"ends": NOON_MS},
        {"good_until": NOON_MS},
        {"version": 4},
        {"revision": 1},
    ],
)
async def test_a_snapshot_that_was_overtaken_is_taken_again(
    still: Bench, stale: dict[str, Any]
) -> None:
    await still.hset(still.meta_key, epoch=2)
    await still.load(USER, limit(most=77), version=5, revision=2, **PERIOD)
    await still.hset(still.meta_key, floor="9-0")
    before = await still.state()
    fresh = PERIOD | {"epoch": 2, "version": 5, "revision": 2, "cursor": "9-0", "through": "9-0"}
    assert await still.load(USER, limit(), **(fresh | stale)) is RETRY
    assert await still.state() == before
    assert await still.load(USER, limit(), **fresh) is LOADED


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        (limit(most=150_000), {"limit:calls": b"h150000"}),
        (limit(enforcement="s", most=None), {"limit:calls": b"s-"}),
        (limit(enforcement="x", most=0), {"limit:calls": b"x0"}),
        (limit(enforcement="n", most=None, used=3), {"limit:calls": b"n-", "used:calls": b"3"}),
        (
            limit(most=1, rate=5, window_s=60),
            {"limit:calls": b"h1", "rate:calls": b"5 60000000"},
        ),
    ],
)
async def test_a_rule_is_stored_as_the_scripts_read_it(
    still: Bench, said: Limit, stored: dict[str, bytes]
) -> None:
    await still.load(USER, said, version=3, **PERIOD)
    assert await still.hash(still.quota_key(USER)) == stored | {
        "epoch": b"1", "version": b"3", "revision": b"0", "terms": TERMS,
        "seen_at": b"%d" % NOON_MS, "pool_version": b"0",
        "starts": b"%d" % PERIOD["starts"], "ends": b"%d" % PERIOD["ends"],
        "good_until": b"%d" % PERIOD["ends"],
    }  # fmt: skip


async def test_ids_are_compared_as_numbers(still: Bench) -> None:
    await still.hset(still.meta_key, floor="99-10")
    assert await still.load(USER, limit(), cursor="99-9") is RETRY
    assert await still.load(USER, limit(), cursor="99-10") is LOADED
    await still.hset(still.meta_key, floor="100-0")
    assert await still.load(MEMBER, limit(), cursor="99-11") is RETRY
    assert await still.load(MEMBER, limit(), cursor="1000-0") is LOADED


async def test_what_an_earlier_epoch_knew_of_holds_nobody_out(bench: Bench) -> None:
    """A restored ledger counts from where it was; an operator then begins a new epoch."""
    await bench.load(USER, limit(used=7), version=5, revision=3)
    await bench.hset(bench.meta_key, epoch=2)
    assert await bench.load(USER, limit(used=4), version=4, revision=2) is LOADED
    assert await bench.used() == 4


async def test_a_stub_holds_out_for_its_version(bench: Bench) -> None:
    await bench.hset(bench.quota_key(USER), version=10)
    await bench.server.run("EXPIRE", bench.quota_key(USER), 100)
    assert await bench.load(USER, limit(), version=9) is RETRY
    assert await bench.load(USER, limit(), version=10) is LOADED
    assert (await bench.hash(bench.quota_key(USER)))["version"] == b"10"
    assert 86_000 < await bench.life(USER) <= 86_400
    assert (await bench.check(1)).outcome is Outcome.ALLOWED


async def test_a_newer_version_replaces_rules_terms_and_block_and_takes_the_ledgers_count(
    bench: Bench,
) -> None:
    await bench.load(USER, limit(most=10, used=3), limit("old"), blocked="paused")
    assert (await bench.check(1)).outcome is Outcome.BLOCKED
    assert await bench.load(
        USER, limit(most=20, used=5), version=2, terms=b"new"
    ) is LOADED  # fmt: skip
    fields = await bench.hash(bench.quota_key(USER))
    assert (fields["limit:calls"], fields["used:calls"]) == (b"h20", b"5")
    assert (fields["terms"], fields["version"]) == (b"new", b"2")
    assert not fields.keys() & {"blocked", "limit:old"}


async def test_loading_what_is_loaded_changes_nothing(bench: Bench) -> None:
    await bench.load(USER, limit(most=10))
    await bench.record(event(4))
    before = await bench.state()
    for _ in range(2):
        assert await bench.load(USER, limit(most=10)) is LOADED
    assert await bench.state() == before


async def test_a_usage_type_the_hash_does_not_know_is_added_by_loading_again(
    bench: Bench,
) -> None:
    await bench.load(USER, limit(most=10))
    await bench.record(event(4))
    assert await bench.load(USER, limit(most=10), limit("new", most=7)) is LOADED
    assert await bench.used() == 4
    assert (await bench.check(7, usage_type="new")).outcome is Outcome.ALLOWED


async def test_a_lost_quota_is_rebuilt_from_the_tail(bench: Bench) -> None:
    await bench.load(USER, limit(most=100), limit("tokens", most=None))
    await bench.record(event(4), event(5), event(6, usage_type="tokens"))
    await bench.server.run("DEL", bench.quota_key(USER))
    await bench.load(USER, limit(most=100, used=30), limit("tokens", most=None))
    assert [await bench.used(USER, name) for name in ("calls", "tokens")] == [39, 6]


async def test_only_entries_after_those_already_counted_are_added(bench: Bench) -> None:
    await bench.load(USER, limit(most=100))
    last_ids = [(await bench.record(event(units))).last_ids[PARTITION] for units in (1, 2, 4, 8)]
    for number, through in enumerate(last_ids):
        await bench.server.run("DEL", bench.quota_key(USER))
        drained = 2 ** (number + 1) - 1
        await bench.load(USER, limit(most=100, used=drained), cursor=last_ids[0], through=through)
        assert await bench.used() == 15


async def test_a_tail_adds_to_a_subject_only_what_is_its_own(bench: Bench) -> None:
    subjects = (USER, MEMBER, OTHER_MEMBER, POOL)
    for subject in subjects:
        await bench.load(subject, limit(most=None), limit("tokens", most=None))
    for units, who in ((1, USER), (2, MEMBER), (4, OTHER_MEMBER)):
        await bench.record(event(units, who=who), event(units * 10, who=who, usage_type="tokens"))
    for subject in subjects:
        await bench.server.run("DEL", bench.quota_key(subject))
        await bench.load(subject, limit(most=None))
    assert [await bench.used(subject) for subject in subjects] == [1, 2, 4, 6]
    assert [await bench.used(subject, "tokens") for subject in subjects] == [0, 0, 0, 0]


async def test_a_tail_adds_only_entries_of_the_hashs_own_period(bench: Bench) -> None:
    today = await bench.now() // DAY_MS * DAY_MS
    await bench.load(MEMBER, limit(most=None), starts=today - 2 * DAY_MS)
    await bench.load(POOL, limit(most=None), starts=today - DAY_MS)
    await bench.record(event(3, who=MEMBER))
    expected = {
        (MEMBER, today - 2 * DAY_MS): 3, (MEMBER, today - DAY_MS): 0,
        (POOL, today - DAY_MS): 3, (POOL, today - 2 * DAY_MS): 0,
    }  # fmt: skip
    for number, ((subject, starts), used) in enumerate(expected.items()):
        await bench.load(subject, limit(most=None), starts=starts, version=2 + number)
        assert await bench.used(subject) == used


async def test_a_recovery_entry_in_the_tail_is_passed_over(bench: Bench) -> None:
    await bench.load(USER, limit(most=100))
    await bench.record(event(2))
    await bench.server.run("XADD", bench.stream_key, "*", "recovery", "2", "cursor", "0-0")
    await bench.record(event(3))
    await bench.load(USER, limit(most=100), version=2)
    assert await bench.used() == 5


@pytest.mark.parametrize(
    "entry",
    [
        ("event", "short"),
        ("event", "short", "quota", "short"),
        ("event", b"i" * 16 + b"\0\5calls\x11" + USER, "quota", "short"),
    ],
)
async def test_an_entry_that_the_drain_will_park_is_passed_over(
    bench: Bench, entry: tuple[str | bytes, ...]
) -> None:
    await bench.load(USER, limit(most=100))
    await bench.record(event(2))
    await bench.server.run("XADD", bench.stream_key, "*", *entry)
    assert await bench.load(USER, limit(most=100), version=2) is LOADED
    assert await bench.used() == 2


async def test_an_entry_of_another_build_keeps_every_quota_from_being_loaded(bench: Bench) -> None:
    """What it counts is not known: the quota could be given twice."""
    await bench.record()
    await bench.server.run(
        "XADD", bench.stream_key, "*", "id", "i" * 16, "quota", "3 1 1 - 3 - - 0 1"
    )
    assert await bench.load(USER, limit(most=100)) is RETRY


async def test_a_tail_of_a_thousand_is_read_and_one_more_is_not(bench: Bench) -> None:
    await bench.load(USER, limit(most=None))
    first = (await bench.record(event())).last_ids[PARTITION]
    await bench.record(*(event() for _ in range(1000)))
    before = await bench.state()
    assert await bench.load(USER, limit(most=None), version=2) is RETRY
    assert await bench.state() == before
    again = limit(most=None, used=1)
    assert await bench.load(USER, again, version=2, through=first) is LOADED
    assert await bench.used() == 1001


async def test_a_rate_window_outlives_a_reload(still: Bench) -> None:
    windowed = limit(most=None, rate=2, window_s=60)
    await still.load(USER, windowed)
    await still.record(event(2))
    await still.load(USER, windowed, version=2)
    assert (await still.check(1)).outcome is Outcome.RATE_LIMITED
    await still.move(us=29_999_999)
    await still.load(USER, windowed, version=3)
    assert (await still.check(1)).outcome is Outcome.RATE_LIMITED
    await still.move(us=1)
    assert (await still.check(1)).outcome is Outcome.ALLOWED
    assert (await still.check(2)).outcome is Outcome.RATE_LIMITED


async def test_a_window_that_a_plan_takes_away_leaves_nothing_behind(still: Bench) -> None:
    await still.load(USER, limit(most=None, rate=2, window_s=60))
    await still.record(event(2))
    await still.load(USER, limit(most=None), version=2)
    assert (await still.check(9)).outcome is Outcome.ALLOWED
    fields = await still.hash(still.quota_key(USER))
    assert not [name for name in fields if name.startswith(("rate", "spent"))]


async def test_a_smaller_window_is_full_at_most(still: Bench) -> None:
    """What was spent of the old window may be more than the new one holds."""
    await still.load(USER, limit(most=None, rate=600, window_s=60))
    await still.record(event(600))
    await still.load(USER, limit(most=None, rate=2, window_s=60), version=2)
    answer = await still.check(1)
    assert (answer.outcome, answer.remaining, answer.limit) == (Outcome.RATE_LIMITED, 0, 2)
    assert answer.detail == [30_000, 60]
    await still.move(ms=30_000)
    assert (await still.check(1)).outcome is Outcome.ALLOWED


async def test_counts_of_sixteen_digits_survive_a_load(bench: Bench) -> None:
    most = 2**53 - 1
    await bench.load(USER, limit(most=most, used=most - 1))
    assert await bench.used() == most - 1
    await bench.load(USER, limit(most=most, used=most - 1), version=10**15)
    fields = await bench.hash(bench.quota_key(USER))
    assert fields["version"] == b"1000000000000000"
    assert fields["limit:calls"] == b"h%d" % most
    assert fields["used:calls"] == b"%d" % (most - 1)
    assert await bench.load(USER, limit(), version=10**15 - 1) is RETRY


async def test_a_negative_ledger_count_is_kept(bench: Bench) -> None:
    await bench.load(USER, limit(most=5, used=-3))
    assert (await bench.check(8)).outcome is Outcome.ALLOWED
    assert (await bench.check(9)).outcome is Outcome.DENIED


async def test_only_the_subjects_own_key_is_written(bench: Bench) -> None:
    before = await bench.state()
    await bench.load(USER, limit())
    after = await bench.state()
    assert after.keys() - before.keys() == {bench.quota_key(USER)}
    assert {key: after[key] for key in before} == before
