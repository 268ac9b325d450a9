"""A quota that is to be rebuilt is a miss, and takes no snapshot from before."""

from __future__ import annotations

import pytest

from lua.types import Fenced, LoadOutcome, Missing, Outcome
from tests.lua.kit import MEMBER, PARTITION, POOL, USER, Bench, event, limit

LOADED, RETRY = LoadOutcome.LOADED, LoadOutcome.RETRY


async def rebuild(bench: Bench, who: bytes = USER, settled: int = 1) -> None:
    pool = POOL if who == MEMBER else None
    await bench.scripts.rebuild(PARTITION, who, pool, settled=settled)


async def test_user_and_pool_are_loaded_again_before_they_are_used(bench: Bench) -> None:
    for subject in (MEMBER, POOL, USER):
        await bench.load(subject, limit(used=9))
    await rebuild(bench, MEMBER)
    [missed] = (await bench.record(event(who=MEMBER))).answers
    assert (missed.outcome, missed.detail) == (Outcome.MISS, Missing.USER | Missing.POOL)
    assert (await bench.check(1, who=MEMBER)).outcome is Outcome.MISS
    for subject in (MEMBER, POOL):
        assert await bench.load(subject, limit(used=2), settled=1) is LOADED
        assert await bench.used(subject) == 2
    assert (await bench.record(event(who=USER))).answers[0].outcome is Outcome.RECORDED


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_snapshot_from_before_is_refused_also_where_nothing_was_loaded(
    bench: Bench, loaded: bool
) -> None:
    if loaded:
        await bench.load(USER, limit(used=9))
    await rebuild(bench)
    assert await bench.load(USER, limit(used=9)) is RETRY
    assert 86_000 < await bench.life(USER) <= 86_400
    assert await bench.load(USER, limit(used=2), settled=1) is LOADED
    assert await bench.load(USER, limit(used=9), version=2) is RETRY
    assert await bench.used() == 2


async def test_an_earlier_decision_that_arrives_late_takes_nothing_back(bench: Bench) -> None:
    await rebuild(bench, settled=2)
    await rebuild(bench, settled=1)
    assert await bench.load(USER, limit(used=9), settled=1) is RETRY
    assert await bench.load(USER, limit(used=2), settled=2) is LOADED


async def test_what_is_undrained_is_counted_again(bench: Bench) -> None:
    await bench.load(USER, limit(used=5))
    await bench.record(event(3))
    await rebuild(bench)
    await bench.load(USER, limit(used=1), settled=1)
    assert await bench.used() == 4


async def test_a_rate_window_stays(bench: Bench) -> None:
    windowed = limit(most=None, rate=3, window_s=3600)
    await bench.load(USER, windowed)
    await bench.record(event(3))
    await rebuild(bench)
    await bench.load(USER, windowed, settled=1)
    assert (await bench.record(event(1))).answers[0].outcome is Outcome.RATE_LIMITED


async def test_a_server_that_is_not_vouched_for_is_left_as_it_is(bench: Bench) -> None:
    await bench.load(USER, limit())
    await bench.hset(bench.meta_key, replid="f" * 40)
    before = await bench.state()
    with pytest.raises(Fenced):
        await rebuild(bench)
    assert await bench.state() == before
