"""Check says what record would do, and writes nothing; quota shows the hashes as they stand."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.domain.quantity import MAX_UNITS
from lua.connection import RedisConnection
from lua.types import Limit, Missing, Outcome
from tests.entries import quota_in_words
from tests.lua.kit import (
    DAY_MS,
    MEMBER,
    NOON_MS,
    PARTITION,
    POOL,
    TERMS,
    USER,
    Bench,
    event,
    limit,
)


async def test_what_is_allowed_is_shown_with_what_is_left_before_it(bench: Bench) -> None:
    await bench.load(USER, limit(most=10, used=4))
    before = await bench.state()
    answer = await bench.check(6)
    assert (answer.outcome, answer.remaining) == (Outcome.ALLOWED, 6)
    assert (answer.scope, answer.limit) == (1, 10)
    assert answer.starts <= await bench.now() < answer.ends
    assert await bench.state() == before


async def test_what_is_denied_is_shown_with_the_limit_that_binds(bench: Bench) -> None:
    await bench.load(MEMBER, limit(most=10))
    await bench.load(POOL, limit(most=5, used=2), starts=1)
    answer = await bench.check(6, who=MEMBER)
    assert (answer.outcome, answer.remaining) == (Outcome.DENIED, 3)
    assert (answer.scope, answer.limit, answer.starts) == (2, 5, 1)
    assert (await bench.check(6, who=MEMBER, enforce=False)).outcome is Outcome.ALLOWED


async def test_unlimited_is_allowed_without_numbers(bench: Bench) -> None:
    await bench.load(USER, limit(most=None))
    answer = await bench.check(10**15)
    assert (answer.outcome, answer.remaining, answer.scope) == (Outcome.ALLOWED, None, 0)


async def test_misses_blocks_and_overflow_are_those_of_record(bench: Bench) -> None:
    assert (await bench.check(1)).detail == Missing.USER
    answer = await bench.check(1, who=MEMBER)
    assert (answer.outcome, answer.detail) == (Outcome.MISS, Missing.USER | Missing.POOL)
    await bench.load(MEMBER, limit())
    assert (await bench.check(1, who=MEMBER)).detail == Missing.POOL
    await bench.load(USER, limit(), blocked="paused")
    answer = await bench.check(1)
    assert (answer.outcome, answer.detail) == (Outcome.BLOCKED, b"paused")
    await bench.load(USER, limit(most=None, used=MAX_UNITS), version=2)
    assert (await bench.check(1)).outcome is Outcome.OVERFLOW


async def test_a_check_does_not_keep_a_quota_alive(bench: Bench) -> None:
    await bench.load(USER, limit())
    await bench.server.run("EXPIRE", bench.quota_key(USER), 100)
    await bench.check(1)
    assert await bench.server.run("TTL", bench.quota_key(USER)) <= 100


rules = st.builds(
    limit,
    st.just("calls"),
    st.sampled_from("hswn"),
    st.one_of(st.none(), st.integers(0, 12)),
    rate=st.sampled_from([0, 0, 2, 5, 7]),
    window_s=st.just(10),
    used=st.integers(0, 14),
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    user=rules,
    pool=rules,
    history=st.lists(st.integers(1, 4), max_size=3),
    units=st.integers(1, 9),
    pause_ms=st.sampled_from([0, 1999, 2000, 5000]),
    enforce=st.booleans(),
    personal=st.booleans(),
)
async def test_record_does_what_check_said(
    redis: RedisConnection,
    user: Limit,
    pool: Limit,
    history: list[int],
    units: int,
    pause_ms: int,
    enforce: bool,
    personal: bool,
) -> None:
    await redis.run("FLUSHALL")
    bench = Bench(redis, NOON_MS * 1000)
    await bench.vouch()
    who = USER if personal else MEMBER
    await bench.load(who, user)
    await bench.load(POOL, pool)
    await bench.record(*(event(one, who=who) for one in history), enforce=False)
    await bench.move(ms=pause_ms)

    before = await bench.state()
    checked = await bench.check(units, who=who, enforce=enforce)
    assert await bench.state() == before
    recorded = (await bench.record(event(units, who=who), enforce=enforce)).answers[0]

    assert recorded.outcome is checked.outcome
    assert (recorded.starts, recorded.ends) == (checked.starts, checked.ends)
    assert recorded.detail == checked.detail
    if checked.outcome is Outcome.ALLOWED:
        counted = [(who, user), *([] if personal else [(POOL, pool)])]
        left = [
            max(0, rule.limit - await bench.used(subject))
            for subject, rule in counted
            if rule.limit is not None and rule.enforcement in "hs"
        ]
        assert recorded.remaining == (min(left) if left else None)
        assert (checked.remaining is None) is (recorded.remaining is None)
    else:
        assert (recorded.remaining, recorded.scope, recorded.limit) == (
            checked.remaining, checked.scope, checked.limit
        )  # fmt: skip


async def test_quota_names_what_is_missing_and_shows_nothing_of_the_rest(bench: Bench) -> None:
    async def missing(who: bytes, pool: bytes | None) -> Missing:
        found = await bench.scripts.quota(PARTITION, who, pool)
        if found.missing:
            assert (found.user, found.pool) == ({}, {})
        assert abs(found.now - await bench.now()) < 60_000
        return found.missing

    assert await missing(USER, None) is Missing.USER
    assert await missing(MEMBER, POOL) == Missing.USER | Missing.POOL
    await bench.load(POOL, limit())
    assert await missing(MEMBER, POOL) is Missing.USER
    await bench.load(MEMBER, limit())
    assert await missing(MEMBER, POOL) is Missing.NONE
    await bench.server.run("DEL", bench.quota_key(POOL))
    assert await missing(MEMBER, POOL) is Missing.POOL


async def test_quota_shows_the_hashes_as_they_stand(still: Bench) -> None:
    starts, ends = NOON_MS - DAY_MS, NOON_MS + DAY_MS
    period = {"starts": starts, "ends": ends}
    await still.load(MEMBER, limit(most=10, rate=5, window_s=10), limit("tokens", "x", 0), **period)
    await still.load(POOL, limit(most=None, used=40), version=7, blocked="paused", **period)
    await still.record(event(3, who=MEMBER))
    before = await still.state()
    found = await still.scripts.quota(PARTITION, MEMBER, POOL)
    assert found.now == NOON_MS
    head = {
        "epoch": b"1", "starts": b"%d" % starts, "ends": b"%d" % ends, "terms": TERMS,
        "good_until": b"%d" % ends,
        "seen_at": b"%d" % NOON_MS, "revision": b"0", "pool_version": b"1",
    }  # fmt: skip
    assert quota_in_words(found.user) == head | {
        "version": b"1", "limit:calls": b"h10", "used:calls": b"3", "rate:calls": b"5 10000000",
        "spent:calls": b"3", "spent_at:calls": b"%d" % (NOON_MS * 1000), "limit:tokens": b"x0",
    }  # fmt: skip
    assert quota_in_words(found.pool) == head | {
        "version": b"7", "blocked": b"paused", "limit:calls": b"h-", "used:calls": b"43",
    }  # fmt: skip
    assert await still.state() == before


async def test_a_stub_is_not_shown_as_a_quota(bench: Bench) -> None:
    await bench.hset(bench.quota_key(USER), version=9)
    await bench.server.run("EXPIRE", bench.quota_key(USER), 100)
    found = await bench.scripts.quota(PARTITION, USER, None)
    assert (found.missing, found.user) == (Missing.USER, {})
    assert (await bench.check(1)).outcome is Outcome.MISS


async def test_a_personal_quota_has_no_pool(bench: Bench) -> None:
    await bench.load(USER, limit())
    found = await bench.scripts.quota(PARTITION, USER, None)
    assert (found.missing, found.pool) == (Missing.NONE, {})
