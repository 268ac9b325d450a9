"""One call, several partitions: each decides and keeps its own as if it had been asked alone."""

from __future__ import annotations

import pytest

from lua.connection import RedisConnection, RedisUnavailable
from lua.types import Answer, Event, LookedUp, Missing, Outcome, Recorded
from tests.lua.kit import (
    CAP,
    DAY_MS,
    MEMBER,
    NOON_MS,
    OTHER_MEMBER,
    PARTITION,
    POOL,
    USER,
    Bench,
    event,
    limit,
)

SECOND, THIRD = 7, 0  # not in the order of their numbers
STRANGER = "f" * 40

RECORDED, REPLAYED, CONFLICT, DENIED = (
    Outcome.RECORDED, Outcome.REPLAYED, Outcome.CONFLICT, Outcome.DENIED,
)  # fmt: skip
LOOK_UP, MISS, FULL, FENCED = Outcome.LOOK_UP, Outcome.MISS, Outcome.FULL, Outcome.FENCED


@pytest.fixture
async def second(bench: Bench) -> Bench:
    return await vouched(bench, SECOND)


@pytest.fixture
async def third(bench: Bench) -> Bench:
    return await vouched(bench, THIRD)


async def vouched(bench: Bench, partition: int) -> Bench:
    """Another partition of the bench's server."""
    made = Bench(bench.server, partition=partition)
    await made.vouch()
    return made


async def call(bench: Bench, *events: Event, enforce: bool = True, cap: int = CAP) -> Recorded:
    """One call, fenced partitions and all."""
    return await bench.scripts.record(events, enforce=enforce, cap=cap)


def kinds(recorded: Recorded) -> list[Outcome]:
    return [one.outcome for one in recorded.answers]


async def own(bench: Bench) -> dict[str, tuple[bytes, int]]:
    """Everything the server holds of this partition."""
    tag = f"{{p{bench.partition:02d}}}"
    return {key: held for key, held in (await bench.state()).items() if tag in key}


async def units(bench: Bench) -> list[int]:
    """Units of the partition's entries, in the stream's order."""
    return [int(fields["quota"].split()[0]) for _, fields in await bench.entries()]


async def test_each_event_goes_to_the_stream_and_counters_of_its_own_partition(
    bench: Bench, second: Bench, third: Bench
) -> None:
    mosts = {bench: 10, second: 200, third: 3000}
    for one, most in mosts.items():
        await one.load(USER, limit(most=most))
    order = [PARTITION, SECOND, THIRD, SECOND, PARTITION, THIRD, SECOND]
    said = [event(1 << at, partition=partition) for at, partition in enumerate(order)]
    recorded = await call(bench, *said)

    # 1 and then 16 of 10, 2 + 8 + 64 of 200, 4 + 32 of 3000.
    assert kinds(recorded) == [RECORDED] * 4 + [DENIED] + [RECORDED] * 2
    assert [one.remaining for one in recorded.answers] == [9, 198, 2996, 190, 9, 2964, 126]
    assert [one.limit for one in recorded.answers] == [10, 200, 3000, 200, 10, 3000, 200]
    for one, expected in ((bench, [1]), (second, [2, 8, 64]), (third, [4, 32])):
        assert await units(one) == expected
        assert await one.used() == sum(expected)
        assert (await one.standing()).undrained == len(expected)
        assert recorded.last_ids[one.partition] == (await one.entries())[-1][0]
    assert recorded.last_ids.keys() == {PARTITION, SECOND, THIRD}


async def test_what_one_call_leaves_behind_is_what_calls_apart_leave(
    redis: RedisConnection,
) -> None:
    """All of it but the ids that the server gives out by its own clock."""
    kept = []
    for together in (True, False):
        await redis.run("FLUSHALL")
        benches = [Bench(redis, NOON_MS * 1000, partition=one) for one in (PARTITION, SECOND)]
        for bench in benches:
            await bench.vouch()
            await bench.load(USER, limit(enforcement="s", most=9, rate=50, window_s=60))
            await bench.load(MEMBER, limit(most=20))
            await bench.load(POOL, limit(most=15))
        said = [
            event(number, who=who, key=f"{partition} {number}", partition=partition)
            for number, who in ((1, USER), (2, MEMBER), (16, MEMBER), (10, USER))
            for partition in (SECOND, PARTITION)
        ]
        calls = [said] if together else [[one] for one in said]
        answers = [one for some in calls for one in (await call(benches[0], *some)).answers]
        for bench in benches:
            held = {key: await redis.run("HGETALL", key) for key in await bench.keys("[^u]*")}
            kept.append((answers, held, [fields for _, fields in await bench.entries()]))
    assert kept[:2] == kept[2:]


async def test_the_last_id_is_that_of_the_partitions_last_entry(
    bench: Bench, second: Bench, third: Bench
) -> None:
    for one in (bench, second, third):
        await one.load(USER, limit(most=5))
    # Ids that cannot be confused: the second stream is ahead of the clock, the third further.
    for one, ahead in ((second, DAY_MS), (third, 2 * DAY_MS)):
        future = f"{await bench.now() + ahead}-0"
        await one.server.run("XADD", one.stream_key, future, "recovery", "1")
    recorded = await call(
        bench,
        event(2, partition=THIRD),
        event(9, partition=SECOND),
        event(2, partition=PARTITION),
        event(2, partition=THIRD),
        event(2, partition=THIRD),
    )
    assert kinds(recorded) == [RECORDED, DENIED, RECORDED, RECORDED, DENIED]
    assert recorded.last_ids == {
        PARTITION: (await bench.entries())[-1][0],
        THIRD: (await third.entries())[-1][0],
    }
    assert len(await second.entries()) == 1


async def test_a_partition_where_nothing_is_admitted_is_left_alone(
    bench: Bench, second: Bench, third: Bench
) -> None:
    for one in (bench, second):
        await one.load(USER, limit(most=5))
    await call(bench, event(1, key="k", partition=SECOND))
    before = await own(second), await own(third)
    recorded = await call(
        bench,
        event(1, key="k", partition=SECOND),
        event(9, partition=SECOND),
        event(1, partition=THIRD),
        event(1),
    )
    assert kinds(recorded) == [REPLAYED, DENIED, MISS, RECORDED]
    assert (await own(second), await own(third)) == before
    assert recorded.last_ids.keys() == {PARTITION}


@pytest.mark.parametrize("fenced", [(PARTITION,), (SECOND,), (THIRD,), (PARTITION, THIRD)])
@pytest.mark.parametrize("damage", ["other server", "gone"])
async def test_a_fenced_partition_says_so_and_the_others_of_the_call_go_on(
    bench: Bench, second: Bench, third: Bench, fenced: tuple[int, ...], damage: str
) -> None:
    benches = {one.partition: one for one in (bench, second, third)}
    for one in benches.values():
        await one.load(USER, limit(most=10))
        await one.record(event(1, key="before", partition=one.partition))
    for partition in fenced:
        key = benches[partition].meta_key
        if damage == "gone":
            await bench.server.run("DEL", key)
        else:
            await bench.hset(key, replid=STRANGER)
    before = {partition: await own(benches[partition]) for partition in fenced}

    said = [event(2, partition=partition) for partition in benches]
    said += [event(1, key="before", partition=partition) for partition in reversed(benches)]
    recorded = await call(bench, *said)

    for sent, answer, kind in zip(
        said, recorded.answers, [RECORDED] * 3 + [REPLAYED] * 3, strict=True
    ):
        if sent.partition in fenced:
            assert answer == Answer(FENCED)
        else:
            assert answer.outcome is kind
    for partition, one in benches.items():
        if partition in fenced:
            assert await own(one) == before[partition]
        else:
            assert await units(one) == [1, 2]
            assert await one.used() == 3
    assert recorded.last_ids.keys() == benches.keys() - set(fenced)


async def test_a_call_of_fenced_partitions_only_writes_nothing(bench: Bench, second: Bench) -> None:
    for one in (bench, second):
        await one.load(USER, limit())
        await one.hset(one.meta_key, replid=STRANGER)
    before = await bench.state()
    recorded = await call(bench, event(), event(partition=SECOND), event())
    assert recorded == Recorded([Answer(FENCED)] * 3, {})
    assert await bench.state() == before


@pytest.mark.parametrize("body", [b"samebody", b"another!"])
async def test_the_same_key_in_two_partitions_of_one_call_is_one_unit(
    bench: Bench, second: Bench, body: bytes
) -> None:
    """The fingerprint names the account, so it is a conflict where accounts differ."""
    for one in (bench, second):
        await one.load(USER, limit(most=10))
    first = event(3, key="k")
    other = event(4, key="k", body=body, partition=SECOND)
    assert first.usage_id == other.usage_id
    before = await own(second)
    recorded = await call(bench, first, other, first, other)
    repeated = REPLAYED if body == b"samebody" else CONFLICT
    assert kinds(recorded) == [RECORDED, repeated, REPLAYED, repeated]
    numbers = {(one.recorded_at, one.remaining) for one in recorded.answers}
    assert len(numbers - {(0, None)}) == 1
    assert await own(second) == before
    assert (await bench.used(), await bench.receipts()) == (3, 1)
    assert recorded.last_ids.keys() == {PARTITION}


async def test_a_key_refused_in_one_partition_is_free_in_the_next(
    bench: Bench, second: Bench
) -> None:
    for one, most in ((bench, 1), (second, 10)):
        await one.load(USER, limit(most=most))
    said = [
        event(3, key="k", partition=one, looked_up=LookedUp.UNKNOWN)
        for one in (PARTITION, SECOND, PARTITION)
    ]
    assert kinds(await call(bench, *said)) == [DENIED, RECORDED, REPLAYED]
    assert [await one.used() for one in (bench, second)] == [0, 3]


async def test_over_two_calls_the_same_key_in_two_partitions_is_two_units(
    bench: Bench, second: Bench
) -> None:
    for one in (bench, second):
        await one.load(USER, limit(most=10))
    first = event(3, key="k")
    other = event(4, key="k", body=b"another!", partition=SECOND)
    assert kinds(await call(bench, first)) == kinds(await call(bench, other)) == [RECORDED]
    assert [await one.used() for one in (bench, second)] == [3, 4]
    assert [await one.receipts() for one in (bench, second)] == [1, 1]

    again = await call(bench, other, first, event(3, key="k", partition=SECOND))
    assert kinds(again) == [REPLAYED, REPLAYED, CONFLICT]
    assert [one.remaining for one in again.answers[:2]] == [6, 7]


async def test_a_retry_is_a_replay_whatever_else_its_call_makes_of_the_key(
    bench: Bench, second: Bench
) -> None:
    for one in (bench, second):
        await one.load(USER, limit(most=10))
    known = event(4, key="k", body=b"another!", partition=SECOND)
    first = (await call(bench, known)).answers[0]
    recorded = await call(bench, event(3, key="k"), known)
    assert kinds(recorded) == [RECORDED, REPLAYED]
    again = recorded.answers[1]
    assert (again.recorded_at, again.remaining) == (first.recorded_at, first.remaining)
    assert [await one.used() for one in (bench, second)] == [3, 4]


async def test_a_key_known_in_one_partition_is_new_in_another(bench: Bench, second: Bench) -> None:
    for one in (bench, second):
        await one.load(USER, limit(most=10))
    await call(bench, event(3, key="k"))
    recorded = await call(bench, event(3, key="k"), event(3, key="k", partition=SECOND))
    assert kinds(recorded) == [REPLAYED, RECORDED]
    assert [await one.receipts() for one in (bench, second)] == [1, 1]


async def test_subjects_of_the_same_name_are_counted_apart(bench: Bench, second: Bench) -> None:
    for one, most in ((bench, 5), (second, 7)):
        await one.load(MEMBER, limit(most=None, rate=100, window_s=60))
        await one.load(OTHER_MEMBER, limit(most=None))
        await one.load(POOL, limit(most=most))
    said = [
        event(units, who=who, partition=partition)
        for units, who in ((3, MEMBER), (2, OTHER_MEMBER), (1, MEMBER))
        for partition in (PARTITION, SECOND)
    ]
    recorded = await call(bench, *said)
    assert kinds(recorded) == [RECORDED] * 4 + [DENIED, RECORDED]
    assert [await one.used(POOL) for one in (bench, second)] == [5, 6]
    assert [await one.used(MEMBER) for one in (bench, second)] == [3, 4]
    spent = [await one.hash(one.quota_key(MEMBER)) for one in (bench, second)]
    assert [fields["spent:calls"] for fields in spent] == [b"3", b"4"]


async def test_a_quota_missing_in_one_partition_is_missed_there_only(
    bench: Bench, second: Bench
) -> None:
    await bench.load(MEMBER, limit())
    await bench.load(POOL, limit())
    await second.load(POOL, limit())
    recorded = await call(
        bench, event(who=MEMBER, partition=SECOND), event(who=MEMBER), event(partition=SECOND)
    )
    assert [(one.outcome, one.detail) for one in recorded.answers] == [
        (MISS, Missing.USER), (RECORDED, None), (MISS, Missing.USER)
    ]  # fmt: skip


async def test_each_partition_has_a_cap_of_its_own(bench: Bench, second: Bench) -> None:
    for one in (bench, second):
        await one.load(USER, limit(most=100))
    await bench.record(event(), event())
    recorded = await call(bench, *(event(partition=one) for one in (SECOND, PARTITION) * 4), cap=3)
    assert kinds(recorded) == [
        RECORDED, RECORDED, RECORDED, FULL, RECORDED, FULL, FULL, FULL
    ]  # fmt: skip
    assert [(await one.standing()).undrained for one in (bench, second)] == [3, 3]
    # What one of them has drained makes room in that one only.
    replid = (await second.meta())["replid"]
    await second.scripts.trim(SECOND, replid=replid, drained=2, through="")
    recorded = await call(bench, *(event(partition=one) for one in (PARTITION, SECOND) * 3), cap=3)
    assert kinds(recorded) == [FULL, RECORDED, FULL, RECORDED, FULL, FULL]


async def test_each_partition_has_an_epoch_and_a_memory_of_its_own(
    bench: Bench, second: Bench
) -> None:
    await bench.load(USER, limit(most=100))
    await second.hset(second.meta_key, epoch=2, bumped_at=await second.now())
    await second.load(USER, limit(most=100))
    recorded = await call(
        bench,
        event(key="a", partition=SECOND),
        event(key="a"),
        event(key="b", partition=SECOND, looked_up=LookedUp.UNKNOWN),
        event(partition=SECOND),
    )
    assert kinds(recorded) == [LOOK_UP, RECORDED, RECORDED, RECORDED]
    await second.hset(second.meta_key, epoch=3, bumped_at=0)
    assert kinds(await call(bench, event(), event(partition=SECOND))) == [RECORDED, MISS]


@pytest.mark.parametrize("order", [(PARTITION, SECOND), (SECOND, PARTITION)])
async def test_each_partition_has_a_clock_of_its_own(
    bench: Bench, second: Bench, order: tuple[int, int]
) -> None:
    await second.hset(second.meta_key, offset=3 * DAY_MS)
    for one in (bench, second):
        await one.load(USER, limit(most=100))
    before = {one.partition: await one.now() for one in (bench, second)}
    recorded = await call(bench, *(event(key=f"k{one}", partition=one) for one in order))
    assert kinds(recorded) == [RECORDED] * 2
    for partition, answer in zip(order, recorded.answers, strict=True):
        assert before[partition] <= answer.recorded_at < before[partition] + 60_000
    for one in (bench, second):
        day = await one.now() // DAY_MS
        found = [key.split(":")[2] for key in await own(one) if key.startswith("receipt:")]
        assert set(found) == {str(day)}


async def test_what_is_damaged_in_one_partition_fails_the_call_before_the_first_write(
    bench: Bench, second: Bench
) -> None:
    for one in (bench, second):
        await one.load(USER, limit(most=100))
    for key, field in (
        (second.quota_key(USER), "used:calls"),
        (second.meta_key, "retained"),
        (second.meta_key, "offset"),
    ):
        good = (await bench.hash(key)).get(field, b"0")
        await bench.hset(key, **{field: "1.5"})
        before = await bench.state()
        with pytest.raises(RedisUnavailable) as error:
            await call(bench, event(key="k"), event(partition=SECOND))
        assert not error.value.outcome_unknown
        assert await bench.state() == before
        await bench.hset(key, **{field: good})
    assert kinds(await call(bench, event(), event(partition=SECOND))) == [RECORDED] * 2


async def test_a_full_memory_refuses_the_call_before_the_first_write(
    bench: Bench, second: Bench
) -> None:
    for one in (bench, second):
        await one.load(USER, limit(most=100))
    before = await bench.state()
    await bench.server.run("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(RedisUnavailable) as error:
            await call(bench, event(key="k"), event(key="k", partition=SECOND))
    finally:
        await bench.server.run("CONFIG", "SET", "maxmemory", "0")
    assert not error.value.outcome_unknown
    assert await bench.state() == before


async def test_the_life_of_a_quota_is_renewed_in_every_partition(redis: RedisConnection) -> None:
    benches = [Bench(redis, NOON_MS * 1000, partition=one) for one in (PARTITION, SECOND)]
    for one in benches:
        await one.vouch()
        await one.load(USER, limit(most=100))
        await one.server.run("EXPIRE", one.quota_key(USER), 1000)
        await one.move(hours=2)
    await call(benches[0], event(partition=SECOND))
    assert [await one.life(USER) > 1000 for one in benches] == [False, True]
    await call(benches[0], event(), event(partition=SECOND))
    assert [await one.life(USER) > 86_000 for one in benches] == [True, True]


async def test_not_enforced_is_for_every_partition(bench: Bench, second: Bench) -> None:
    for one in (bench, second):
        await one.load(USER, limit(most=1))
    recorded = await call(bench, event(5), event(5, partition=SECOND), enforce=False)
    assert [(one.outcome, one.exceeded) for one in recorded.answers] == [(RECORDED, 1)] * 2
    for one in (bench, second):
        [(_, fields)] = await one.entries()
        assert fields["quota"].split()[-1] == b"0"


async def test_a_call_without_events_is_answered_with_nothing(bench: Bench) -> None:
    before = await bench.state()
    assert await call(bench) == Recorded([], {})
    assert await bench.state() == before


async def test_as_many_partitions_as_a_call_holds_events(bench: Bench) -> None:
    benches = [await vouched(bench, partition) for partition in range(64) if partition != PARTITION]
    for one in benches:
        await one.load(USER, limit(most=1000))
    said = [event(one.partition + 1, partition=one.partition) for one in benches] * 2
    recorded = await call(bench, *said)
    assert kinds(recorded) == [RECORDED] * len(said)
    for one in benches:
        assert await units(one) == [one.partition + 1] * 2
        assert recorded.last_ids[one.partition] == (await one.entries())[-1][0]
