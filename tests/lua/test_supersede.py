"""Supersede: what was loaded under earlier terms is used no more, and the stream says from when."""

from __future__ import annotations

import pytest

from lua import keys
from lua.types import Fenced, LoadOutcome, Missing, Outcome
from tests.lua.kit import DAY_MS, MEMBER, OTHER_MEMBER, PARTITION, POOL, USER, Bench, event, limit

LOADED, RETRY = LoadOutcome.LOADED, LoadOutcome.RETRY


async def supersede(bench: Bench, subject: bytes, version: int, **said: int) -> str | None:
    return await bench.scripts.supersede(PARTITION, {subject: version}, control=b"why", **said)


async def outcome(bench: Bench, who: bytes = USER) -> tuple[Outcome, object]:
    [answer] = (await bench.record(event(who=who))).answers
    return answer.outcome, answer.detail


async def test_the_next_event_waits_for_the_new_terms(bench: Bench) -> None:
    await bench.load(USER, limit(most=1), version=3)
    await supersede(bench, USER, 4)
    assert await outcome(bench) == (Outcome.MISS, Missing.USER)
    assert await bench.load(USER, limit(most=1), version=3) is RETRY
    assert await bench.load(USER, limit(most=9), version=4) is LOADED
    assert (await bench.record(event())).answers[0].remaining == 8


async def test_a_quota_that_was_not_there_is_protected_as_well(bench: Bench) -> None:
    """Somebody may be loading it at this moment, from before the change."""
    await supersede(bench, USER, 4)
    assert 86_000 < await bench.life(USER) <= 86_400
    assert await bench.load(USER, limit(), version=3) is RETRY


async def test_newer_terms_stay(bench: Bench) -> None:
    await bench.load(USER, limit(most=9), version=5)
    await supersede(bench, USER, 5)
    await supersede(bench, USER, 4)
    assert await outcome(bench) == (Outcome.RECORDED, None)


async def test_sent_again_it_overtakes_nothing_and_says_so_again(bench: Bench) -> None:
    first = await supersede(bench, USER, 4)
    await bench.load(USER, limit(most=9), version=4)
    second = await supersede(bench, USER, 4)
    assert first and second and keys.before(first, second)
    assert await outcome(bench) == (Outcome.RECORDED, None)


async def test_an_older_change_does_not_weaken_a_newer_one(bench: Bench) -> None:
    await supersede(bench, USER, 7)
    await supersede(bench, USER, 6)
    assert await bench.load(USER, limit(), version=6) is RETRY


async def test_what_an_earlier_epoch_knew_of_does_not_count_as_newer(bench: Bench) -> None:
    """The ledger may have been restored to before that version."""
    await bench.load(USER, limit(), version=9)
    await bench.hset(bench.meta_key, epoch=2)
    await supersede(bench, USER, 4)
    assert await bench.load(USER, limit(), version=3, epoch=2) is RETRY
    assert await bench.load(USER, limit(), version=4, epoch=2) is LOADED


async def test_users_of_an_organization_are_overtaken_by_its_pool_alone(bench: Bench) -> None:
    for subject in (MEMBER, OTHER_MEMBER, POOL):
        await bench.load(subject, limit(most=9), pool_version=3, version=3)
    assert await outcome(bench, MEMBER) == (Outcome.RECORDED, None)
    await supersede(bench, POOL, 4)
    assert await outcome(bench, MEMBER) == (Outcome.MISS, Missing.POOL)
    await bench.load(POOL, limit(most=50), pool_version=4, version=4)
    for member in (MEMBER, OTHER_MEMBER):
        assert await outcome(bench, member) == (Outcome.MISS, Missing.USER)
        assert (await bench.check(1, who=member)).detail == Missing.USER
        hashes = await bench.scripts.quota(PARTITION, member, POOL)
        assert hashes.missing == Missing.USER
        await bench.load(member, limit(most=50), pool_version=4, version=4)
        assert await outcome(bench, member) == (Outcome.RECORDED, None)


async def test_a_pool_that_is_older_than_its_user_is_loaded_first(bench: Bench) -> None:
    """The change is committed and not sent yet, and the user came after it."""
    await bench.load(POOL, limit(), pool_version=3, version=3)
    await bench.load(MEMBER, limit(), pool_version=4, version=4)
    assert await outcome(bench, MEMBER) == (Outcome.MISS, Missing.POOL)
    assert (await bench.scripts.quota(PARTITION, MEMBER, POOL)).missing == Missing.POOL


async def test_the_stream_has_usage_of_earlier_terms_before_the_entry(bench: Bench) -> None:
    await bench.load(USER, limit(most=9), version=3)
    await bench.record(event())
    said = await supersede(bench, USER, 4)
    await bench.load(USER, limit(most=9), version=4)
    await bench.record(event())
    tail = (await bench.scripts.read(PARTITION, after="0-0", count=10)).entries
    assert ["event" in fields for _, fields in tail] == [True, False, True]
    entry_id, fields = tail[1]
    assert (entry_id, fields["control"]) == (said, b"why")
    assert abs(int(fields["at"]) - await bench.now()) < DAY_MS


async def test_what_the_entry_stands_between_is_counted_by_a_load(bench: Bench) -> None:
    await bench.load(USER, limit(most=9), version=3)
    await bench.record(event(2))
    await supersede(bench, USER, 4)
    await bench.load(USER, limit(most=9), version=4)
    assert await bench.used() == 2


async def test_before_its_time_nothing_is_written(bench: Bench) -> None:
    await bench.load(USER, limit(), version=3)
    before = await bench.state()
    assert await supersede(bench, USER, 4, not_before=await bench.now() + DAY_MS) is None
    assert await bench.state() == before
    assert await supersede(bench, USER, 4, not_before=await bench.now() - 1) is not None


async def test_a_rate_window_outlives_a_change(bench: Bench) -> None:
    await bench.load(USER, limit(most=None, rate=5, window_s=3600), version=3)
    await bench.record(event(5))
    await supersede(bench, USER, 4)
    await bench.load(USER, limit(most=None, rate=5, window_s=3600), version=4)
    assert (await outcome(bench))[0] is Outcome.RATE_LIMITED


async def test_a_server_that_is_not_vouched_for_is_told_nothing(bench: Bench) -> None:
    await bench.load(USER, limit(), version=3)
    await bench.hset(bench.meta_key, replid="f" * 40)
    before = await bench.state()
    with pytest.raises(Fenced):
        await supersede(bench, USER, 4)
    assert await bench.state() == before
