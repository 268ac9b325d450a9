"""Unload: a quota is loaded anew, from nothing older. Tally: what it counted at one instant."""

from __future__ import annotations

import pytest

from lua.types import Fenced, LoadOutcome, Missing, Outcome, Tally
from tests.entries import entry_in_words, quota_in_words
from tests.lua.kit import DAY_MS, MEMBER, PARTITION, POOL, USER, Bench, event, limit

LOADED, RETRY = LoadOutcome.LOADED, LoadOutcome.RETRY
STRANGER = "f" * 40


async def tally(bench: Bench, *subjects: bytes, **said: object) -> Tally | None:
    usual = {"epoch": await bench.epoch(), "cursor": "0-0", "through": "0-0"}
    names = [bench.quota_key(one) for one in subjects]
    return await bench.scripts.tally(PARTITION, names, **(usual | said))  # type: ignore[arg-type]


async def unload(bench: Bench, *subjects: str, revision: int) -> None:
    await bench.scripts.unload(PARTITION, subjects, revision=revision)


def words(bench: Bench, subject: bytes) -> str:
    return bench.quota_key(subject).partition("}:")[2]


async def test_an_unloaded_quota_is_a_miss_and_its_next_load_counts_anew(bench: Bench) -> None:
    await bench.load(USER, limit(most=10, used=9))
    await unload(bench, words(bench, USER), revision=1)
    assert (await bench.record(event())).answers[0].outcome is Outcome.MISS
    assert (await bench.check(1)).outcome is Outcome.MISS
    assert await bench.load(USER, limit(most=10, used=4), revision=1) is LOADED
    assert (await bench.record(event())).answers[0].remaining == 5


async def test_user_and_pool_are_unloaded_together_and_nobody_else(bench: Bench) -> None:
    for subject in (MEMBER, POOL, USER):
        await bench.load(subject, limit(used=9))
    await unload(bench, words(bench, MEMBER), words(bench, POOL), revision=1)
    [missed] = (await bench.record(event(who=MEMBER))).answers
    assert (missed.outcome, missed.detail) == (Outcome.MISS, Missing.USER | Missing.POOL)
    assert (await bench.record(event(who=USER))).answers[0].outcome is Outcome.RECORDED


async def test_what_is_undrained_is_counted_again(bench: Bench) -> None:
    await bench.load(USER, limit(used=5))
    await bench.record(event(3))
    await unload(bench, words(bench, USER), revision=1)
    await bench.load(USER, limit(used=1), revision=1)
    assert await bench.used() == 4


async def test_what_an_earlier_epoch_unloaded_holds_nobody_out(bench: Bench) -> None:
    """The ledger may have been restored to before that revision."""
    await unload(bench, words(bench, USER), revision=9)
    await bench.hset(bench.meta_key, epoch=2)
    assert await bench.load(USER, limit(), revision=1, epoch=2) is LOADED


async def test_a_snapshot_from_before_the_change_is_refused(bench: Bench) -> None:
    await bench.load(USER, limit(used=9), revision=4)
    await unload(bench, words(bench, USER), revision=5)
    assert await bench.load(USER, limit(used=9), revision=4) is RETRY
    assert await bench.load(USER, limit(used=3), revision=5) is LOADED
    assert await bench.used() == 3


async def test_a_quota_that_was_not_there_is_protected_as_well(bench: Bench) -> None:
    """Somebody may be loading it at this moment, from before the change."""
    await unload(bench, words(bench, USER), revision=5)
    assert 86_000 < await bench.life(USER) <= 86_400
    assert await bench.load(USER, limit(used=9), revision=4) is RETRY
    assert await bench.load(USER, limit(used=3), revision=5) is LOADED


async def test_an_older_unload_does_not_weaken_a_newer_one(bench: Bench) -> None:
    await unload(bench, words(bench, USER), revision=7)
    await unload(bench, words(bench, USER), revision=6)
    assert await bench.load(USER, limit(), revision=6) is RETRY


async def test_a_newer_revision_replaces_a_quota_that_is_loaded(bench: Bench) -> None:
    await bench.load(USER, limit(used=9), revision=1)
    assert await bench.load(USER, limit(used=8), revision=2) is LOADED
    assert await bench.used() == 8


async def test_a_rate_window_outlives_an_unload(bench: Bench) -> None:
    windowed = limit(most=None, rate=5, window_s=3600)
    await bench.load(USER, windowed)
    await bench.record(event(5))
    await unload(bench, words(bench, USER), revision=1)
    await bench.load(USER, windowed, revision=1)
    assert (await bench.record(event())).answers[0].outcome is Outcome.RATE_LIMITED


async def test_unload_and_tally_say_nothing_of_a_server_that_is_not_vouched_for(
    bench: Bench,
) -> None:
    await bench.load(USER, limit())
    good = (await bench.meta())["replid"]
    await bench.hset(bench.meta_key, replid=STRANGER)
    before = await bench.state()
    with pytest.raises(Fenced):
        await unload(bench, words(bench, USER), revision=1)
    with pytest.raises(Fenced):
        await tally(bench, USER)
    assert await bench.state() == before
    await bench.hset(bench.meta_key, replid=good)


async def test_a_tally_has_the_counters_and_what_came_after_the_cursor(bench: Bench) -> None:
    await bench.load(USER, limit(most=100))
    await bench.load(MEMBER, limit(most=100))
    await bench.load(POOL, limit(most=100))
    await bench.record(event(3), event(4, who=MEMBER))
    [(first, _), (second, _)] = await bench.entries()
    before = await bench.state()
    found = await tally(bench, USER, MEMBER, POOL, through=first)
    assert found is not None
    assert [quota_in_words(one)["used:calls"] for one in found.quotas] == [b"3", b"4", b"4"]
    [(entry_id, fields)] = found.entries
    assert (entry_id, entry_in_words(fields)["who"]) == (second, MEMBER)
    assert await bench.state() == before


async def test_a_tally_leaves_out_what_is_not_in_use(bench: Bench) -> None:
    now = await bench.now()
    await bench.load(USER, limit())
    await unload(bench, words(bench, USER), revision=1)
    await bench.load(POOL, limit(), starts=now - DAY_MS, ends=now + 200)
    await bench.hset(bench.meta_key, offset=DAY_MS)  # its period is over
    found = await tally(bench, USER, MEMBER, POOL)
    assert found is not None and found.quotas == [{}, {}, {}]


async def test_a_tally_refuses_a_snapshot_that_something_has_overtaken(bench: Bench) -> None:
    assert await tally(bench, USER, epoch=2) is None
    await bench.hset(bench.meta_key, floor="9-0")
    assert await tally(bench, USER, cursor="8-0") is None
    assert await tally(bench, USER, cursor="9-0") is not None


async def test_a_tally_does_not_read_a_long_tail(bench: Bench) -> None:
    await bench.load(USER, limit(most=None))
    for _ in range(10):
        await bench.record(*(event() for _ in range(100)))
    assert await tally(bench, USER) is not None
    await bench.record(event())
    assert await tally(bench, USER) is None
    [(first, _), *_] = await bench.entries()
    assert await tally(bench, USER, through=first) is not None
