"""What the record script will not decide: quotas to load, times out of bounds, broken state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest

from lua.connection import RedisUnavailable
from lua.types import Answer, Event, Fenced, Missing, Outcome
from tests.lua.kit import DAY_MS, HOUR_MS, MEMBER, PARTITION, POOL, USER, Bench, event, limit

STRANGER = "f" * 40
NOT_WHOLE = ("garbage", "1.5", "", "1e-3", "7x", "nan", "-nan", "inf", "-inf", "1e999", "--1")
OTHERWISE_WRITTEN = {"1e3": 1000, "12e0": 12, "7.0": 7, " 7": 7, "7\n": 7, "-3": -3, "0x10": 16}


async def record_one(bench: Bench, one: Event) -> Answer:
    return (await bench.record(one)).answers[0]


async def test_a_personal_quota_that_is_not_there_is_a_miss_with_the_time_to_load_for(
    bench: Bench,
) -> None:
    before, earliest = await bench.state(), await bench.now()
    recorded = await bench.record(event())
    now = recorded.answers[0].recorded_at
    assert recorded.answers == [Answer(Outcome.MISS, now, detail=int(Missing.USER))]
    assert earliest <= now <= await bench.now()
    assert recorded.last_ids == {}
    assert await bench.state() == before


@pytest.mark.parametrize(
    ("loaded", "missing"),
    [
        ((), Missing.USER | Missing.POOL),
        ((MEMBER,), Missing.POOL),
        ((POOL,), Missing.USER),
    ],
)
async def test_a_miss_names_what_is_missing(
    bench: Bench, loaded: tuple[bytes, ...], missing: Missing
) -> None:
    for subject in loaded:
        await bench.load(subject, limit())
    answer = await record_one(bench, event(who=MEMBER))
    assert (answer.outcome, answer.detail) == (Outcome.MISS, missing)


async def test_a_usage_type_younger_than_the_hash_is_a_miss(bench: Bench) -> None:
    await bench.load(MEMBER, limit("calls"))
    await bench.load(POOL, limit("calls"), limit("new"))
    answer = await record_one(bench, event(who=MEMBER, usage_type="new"))
    assert (answer.outcome, answer.detail) == (Outcome.MISS, Missing.USER)


async def test_a_stub_without_a_quota_is_a_miss(bench: Bench) -> None:
    await bench.hset(bench.quota_key(USER), version=2)
    await bench.server.run("EXPIRE", bench.quota_key(USER), 100)
    assert (await record_one(bench, event())).outcome is Outcome.MISS


async def test_a_quota_of_another_epoch_is_a_miss(bench: Bench) -> None:
    await bench.load(USER, limit())
    await bench.hset(bench.meta_key, epoch=2)
    assert (await record_one(bench, event())).outcome is Outcome.MISS


async def test_a_period_begins_with_its_first_millisecond_and_is_over_with_its_end(
    still: Bench,
) -> None:
    now = await still.now()
    await still.load(USER, limit(most=100), starts=now, ends=now + 1000)
    assert (await record_one(still, event())).outcome is Outcome.RECORDED
    await still.move(us=999_999)
    assert (await record_one(still, event())).outcome is Outcome.RECORDED
    await still.move(us=1)
    answer = await record_one(still, event())
    assert (answer.outcome, answer.recorded_at) == (Outcome.MISS, now + 1000)
    await still.move(ms=-1001)
    assert (await record_one(still, event())).outcome is Outcome.MISS


async def test_terms_that_may_have_changed_are_looked_up_within_the_period(still: Bench) -> None:
    now = await still.now()
    period = {"starts": now - DAY_MS, "ends": now + DAY_MS}
    await still.load(USER, limit(most=100), good_until=now + 1000, **period)
    await still.move(us=999_999)
    assert (await record_one(still, event(2))).ends == now + DAY_MS
    await still.move(us=1)
    answer = await record_one(still, event())
    assert (answer.outcome, answer.detail) == (Outcome.MISS, Missing.USER)
    assert (await still.check(1)).detail == Missing.USER
    assert (await still.scripts.quota(PARTITION, USER, None)).missing == Missing.USER
    await still.load(USER, limit(most=100), **period)
    assert (await record_one(still, event())).remaining == 97


async def test_a_quota_that_is_seen_again_is_good_no_longer_for_that(still: Bench) -> None:
    now = await still.now()
    await still.load(USER, limit(most=100), good_until=now + 2 * HOUR_MS, ends=now + DAY_MS)
    await still.move(hours=2, ms=-1)
    assert (await record_one(still, event())).outcome is Outcome.RECORDED  # and seen
    assert int((await still.hash(still.quota_key(USER)))["seen_at"]) == now + 2 * HOUR_MS - 1
    await still.move(ms=1)
    assert (await record_one(still, event())).outcome is Outcome.MISS


async def test_the_end_of_the_pools_period_is_a_miss_of_the_pool(still: Bench) -> None:
    now = await still.now()
    await still.load(MEMBER, limit())
    await still.load(POOL, limit(), ends=now + 1000)
    await still.move(ms=1000)
    answer = await record_one(still, event(who=MEMBER))
    assert (answer.outcome, answer.detail) == (Outcome.MISS, Missing.POOL)


async def test_a_call_may_miss_some_quotas_and_record_on_others(bench: Bench) -> None:
    await bench.load(USER, limit())
    recorded = await bench.record(event(), event(who=MEMBER), event())
    assert [one.outcome for one in recorded.answers] == [
        Outcome.RECORDED, Outcome.MISS, Outcome.RECORDED
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("away", "outcome"),
    [
        (-35 * DAY_MS, Outcome.RECORDED),
        (-35 * DAY_MS - 1, Outcome.UNTIMELY),
        (5 * 60_000, Outcome.RECORDED),
        (5 * 60_000 + 1, Outcome.UNTIMELY),
        (0, Outcome.RECORDED),
    ],
)
async def test_usage_may_be_35_days_old_and_five_minutes_ahead(
    still: Bench, away: int, outcome: Outcome
) -> None:
    await still.load(USER, limit())
    answer = await record_one(still, event(occurred_at=await still.now() + away))
    assert answer.outcome is outcome
    assert await still.used() == (1 if outcome is Outcome.RECORDED else 0)


async def test_the_test_clocks_offset_moves_the_scripts_time(bench: Bench) -> None:
    await bench.load(USER, limit())
    await bench.hset(bench.meta_key, offset=-3 * DAY_MS)
    plain, before = await bench.now(), (await record_one(bench, event())).recorded_at
    assert abs(before - plain) < 60_000
    await bench.hset(bench.meta_key, offset=3 * DAY_MS)
    after = (await record_one(bench, event())).recorded_at
    assert 5 * DAY_MS < after - before < 7 * DAY_MS


@pytest.mark.parametrize("script", ["record", "check", "quota", "load", "read", "trim"])
@pytest.mark.parametrize("damage", ["other server", "gone", "no epoch"])
async def test_a_server_that_is_not_vouched_for_is_fenced_and_nothing_is_written(
    bench: Bench, script: str, damage: str
) -> None:
    await bench.load(MEMBER, limit(most=100))
    await bench.load(POOL, limit(most=100))
    await bench.record(event(key="before", who=MEMBER))
    replid = (await bench.meta())["replid"]
    if damage == "other server":
        await bench.hset(bench.meta_key, replid=STRANGER)
    elif damage == "gone":
        await bench.server.run("DEL", bench.meta_key)
    else:
        await bench.server.run("HDEL", bench.meta_key, "epoch")
    before = await bench.state()
    if script == "load":
        assert (await bench.load(MEMBER, limit(), version=9, epoch=1)).name == "FENCED"
    elif script == "trim":
        trimmed = await bench.scripts.trim(PARTITION, replid=replid, drained=1, through="9-9")
        assert trimmed == -1
    else:
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "record": lambda: bench.record(event(who=MEMBER), event(key="before", who=MEMBER)),
            "check": lambda: bench.check(1, who=MEMBER),
            "quota": lambda: bench.scripts.quota(PARTITION, MEMBER, POOL),
            "read": lambda: bench.scripts.read(PARTITION, after="0-0", count=10),
        }
        with pytest.raises(Fenced):
            await calls[script]()
    assert await bench.state() == before


async def refused(bench: Bench, *events: Event, enforce: bool = True) -> None:
    """Recording fails before anything was written, and the caller is told so."""
    before = await bench.state()
    with pytest.raises(RedisUnavailable) as error:
        await bench.record(*events, enforce=enforce)
    assert not error.value.outcome_unknown
    assert await bench.state() == before


@pytest.mark.parametrize("subject", [MEMBER, POOL], ids=["user", "pool"])
@pytest.mark.parametrize("field", ["used:calls", "spent:calls", "spent_at:calls"])
async def test_a_damaged_number_fails_before_the_first_write(
    bench: Bench, subject: bytes, field: str
) -> None:
    for one in (MEMBER, POOL):
        await bench.load(one, limit(most=100, rate=50, window_s=60))
    await bench.record(event(who=MEMBER))
    await nothing_counts_on(bench, bench.quota_key(subject), field, NOT_WHOLE)


@pytest.mark.parametrize("subject", [MEMBER, POOL], ids=["user", "pool"])
async def test_a_damaged_rule_fails_before_the_first_write(bench: Bench, subject: bytes) -> None:
    for one in (MEMBER, POOL):
        await bench.load(one, limit(most=100))
    await bench.record(event(who=MEMBER))
    key = bench.quota_key(subject)
    good = await bench.server.run("HGET", key, "rule:calls")
    damages = [b"", b"h10", good[:1], good[:-1], b"q" + good[1:], b"H" + good[1:]]
    await nothing_counts_on(bench, key, "rule:calls", damages)


@pytest.mark.parametrize("subject", [MEMBER, POOL], ids=["user", "pool"])
async def test_a_damaged_state_is_loaded_anew(bench: Bench, subject: bytes) -> None:
    for one in (MEMBER, POOL):
        await bench.load(one, limit(most=100))
    key = bench.quota_key(subject)
    good = await bench.server.run("HGET", key, "state")
    for damage in (b"", b"short", good[:-1], good + b"x", good[:-1] + b"\x01"):
        await bench.hset(key, state=damage)
        assert (await record_one(bench, event(who=MEMBER))).outcome is Outcome.MISS
        assert (await bench.load(subject, limit(most=100))).name == "LOADED"
        assert (await record_one(bench, event(who=MEMBER))).outcome is Outcome.RECORDED
    assert await bench.used(subject) == 5


@pytest.mark.parametrize(
    "damage", [b"", b"short", b"f" * 24, b"samebody1773144000000 9 0", b"f" * 26]
)
async def test_a_damaged_receipt_asks_the_ledger_and_harms_no_other_event(
    bench: Bench, damage: bytes
) -> None:
    """The one that ends in 9 0 is of 25 bytes, as receipts were before they were packed."""
    await bench.load(USER, limit(most=100))
    await bench.record(event(key="k"))
    [receipt] = await bench.keys("receipt:*")
    await bench.hset(receipt, **{"": ""})
    await bench.server.run("HSET", receipt, event(key="k").usage_id, damage)
    recorded = await bench.record(event(key="k"), event())
    assert [one.outcome for one in recorded.answers] == [Outcome.LOOK_UP, Outcome.RECORDED]


async def nothing_counts_on(
    bench: Bench, key: str, field: str, damages: Sequence[str | bytes]
) -> None:
    good = await bench.server.run("HGET", key, field)
    for damage in damages:
        await bench.hset(key, **{field: damage})
        await refused(bench, event(who=MEMBER, key="k"))
        await refused(bench, event(who=MEMBER, key="k"), enforce=False)
        with pytest.raises(RedisUnavailable):
            await bench.check(1, who=MEMBER)
    await bench.hset(key, **{field: good})
    assert (await record_one(bench, event(who=MEMBER))).outcome is Outcome.RECORDED


@pytest.mark.parametrize("written", OTHERWISE_WRITTEN)
async def test_a_whole_number_counts_however_it_is_written(bench: Bench, written: str) -> None:
    await bench.load(USER, limit(most=5000))
    await bench.hset(bench.quota_key(USER), **{"used:calls": written})
    number = OTHERWISE_WRITTEN[written]
    answer = await record_one(bench, event(2))
    assert (answer.outcome, answer.remaining) == (Outcome.RECORDED, 5000 - number - 2)
    fields = await bench.hash(bench.quota_key(USER))
    assert fields["used:calls"] == b"%d" % (number + 2)


@pytest.mark.parametrize("field", ["retained", "drained", "bumped_at", "offset"])
async def test_a_damaged_number_of_meta_fails_before_the_first_write(
    bench: Bench, field: str
) -> None:
    await bench.load(USER, limit(most=100))
    for damage in NOT_WHOLE:
        await bench.hset(bench.meta_key, **{field: damage})
        if field != "drained":  # of which only the trim knows
            await refused(bench, event(key="k"))
        before, meta = await bench.state(), await bench.meta()
        with pytest.raises(RedisUnavailable):
            await bench.scripts.trim(PARTITION, replid=meta["replid"], drained=1, through="9-9")
        assert await bench.state() == before
    await bench.hset(bench.meta_key, **{field: 0})
    assert (await record_one(bench, event(key="k"))).outcome is Outcome.RECORDED


async def test_a_good_event_of_a_call_is_not_written_when_a_later_one_fails(bench: Bench) -> None:
    await bench.load(USER, limit(most=100))
    await bench.load(MEMBER, limit(most=100))
    await bench.load(POOL, limit(most=100))
    await bench.hset(bench.quota_key(POOL), **{"used:calls": "garbage"})
    await refused(bench, event(key="k"), event(who=MEMBER))


async def test_a_receipt_hash_of_the_wrong_type_fails_before_the_first_write(
    still: Bench,
) -> None:
    await still.load(USER, limit(most=100))
    await still.record(event(key="k"))
    [receipt] = await still.keys("receipt:*")
    await still.server.run("SET", receipt, "text", "EX", 100)
    await refused(still, event(), event(key="k"))


async def test_a_full_memory_is_refused_before_the_first_write(bench: Bench) -> None:
    await bench.load(USER, limit(most=100))
    await bench.record(event(key="before"))
    await bench.server.run("CONFIG", "SET", "maxmemory", "1")
    try:
        await refused(bench, event(key="k"), event())
        replayed = await record_one(bench, event(key="before"))
        assert replayed.outcome is Outcome.REPLAYED
    finally:
        await bench.server.run("CONFIG", "SET", "maxmemory", "0")
    assert (await record_one(bench, event(key="k"))).outcome is Outcome.RECORDED


async def test_a_server_that_forgot_the_scripts_is_given_them_again(bench: Bench) -> None:
    await bench.load(USER, limit())
    await bench.server.run("SCRIPT FLUSH")
    assert (await record_one(bench, event())).outcome is Outcome.RECORDED
