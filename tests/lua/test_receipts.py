"""A retry is the same unit: receipts, and when the ledger must be asked instead."""

from __future__ import annotations

import msgspec
import pytest

from ledger.domain.quantity import MAX_UNITS
from lua.types import Answer, Event, LookedUp, Outcome, Recorded
from tests.lua.kit import (
    DAY_MS,
    HOUR_MS,
    MARKER,
    MEMBER,
    POOL,
    USER,
    Bench,
    event,
    limit,
)


def names(recorded: Recorded) -> list[str]:
    return [one.outcome.name for one in recorded.answers]


async def record_one(bench: Bench, one: Event, enforce: bool = True) -> Answer:
    return (await bench.record(one, enforce=enforce)).answers[0]


def numbers(answer: Answer) -> tuple[int, int | None, int]:
    """What a retry must repeat exactly."""
    return answer.recorded_at, answer.remaining, answer.exceeded


@pytest.mark.parametrize(
    ("enforcement", "most", "shown"),
    [("h", 100, (97, 0)), ("s", 2, (0, 1)), ("h", None, (None, 0)), ("w", 2, (None, 0))],
)
async def test_a_retry_is_answered_with_the_first_numbers_and_counts_nothing(
    still: Bench, enforcement: str, most: int | None, shown: tuple[int | None, int]
) -> None:
    await still.load(USER, limit(enforcement=enforcement, most=most))
    first = await record_one(still, event(3, key="k"))
    assert (first.remaining, first.exceeded) == shown
    await still.record(event(1))
    await still.move(ms=5000)
    before = await still.state()
    again = await record_one(still, event(3, key="k"))
    assert again.outcome is Outcome.REPLAYED
    assert numbers(again) == numbers(first)
    assert await still.state() == before


async def test_a_call_that_only_replays_writes_where_replicas_are_waited_for(
    bench: Bench,
) -> None:
    """WAITAOF waits for what its connection wrote; the receipt may be another connection's."""
    await bench.load(USER, limit())
    await bench.record(event(key="k"), touch=True)
    before, written = await bench.state(), await bench.calls("hset")
    assert "touch" not in await bench.meta()
    assert names(await bench.record(event(key="k"), event(key="k"), touch=True)) == ["REPLAYED"] * 2
    assert await bench.calls("hset") == written + 1
    after = await bench.state()
    assert {key for key in after if before.get(key) != after[key]} == {bench.meta_key}
    assert (await bench.standing()).undrained == 1
    await bench.record(event(key="k"), event(key="new"), touch=True)  # the entry is a write
    await bench.record(event(key="k"))
    await bench.record(event(10**9), touch=True)  # denied
    assert await bench.calls("hset") == written + 3  # counter and receipt of the new one


async def test_the_same_key_twice_in_one_call_is_one_unit_and_a_replay(bench: Bench) -> None:
    await bench.load(USER, limit(most=4))
    recorded = await bench.record(*(event(3, key="k") for _ in range(3)))
    assert names(recorded) == ["RECORDED", "REPLAYED", "REPLAYED"]
    assert len({numbers(one) for one in recorded.answers}) == 1
    assert await bench.used() == 3
    assert (len(await bench.entries()), await bench.receipts()) == (1, 1)
    assert names(await bench.record(event(3, key="k"))) == ["REPLAYED"]


async def test_the_same_key_with_another_body_in_one_call_is_a_conflict(bench: Bench) -> None:
    await bench.load(USER, limit())
    recorded = await bench.record(event(key="k"), event(key="k", body=b"other..."))
    assert names(recorded) == ["RECORDED", "CONFLICT"]


async def test_the_same_key_with_another_body_changes_nothing(bench: Bench) -> None:
    await bench.load(USER, limit())
    await bench.record(event(key="k"))
    before = await bench.state()
    assert names(await bench.record(event(key="k", body=b"other..."))) == ["CONFLICT"]
    assert await bench.state() == before


async def test_a_refused_key_is_not_remembered(bench: Bench) -> None:
    await bench.load(USER, limit(most=2))
    refused = event(3, key="k", looked_up=LookedUp.UNKNOWN)
    assert names(await bench.record(refused, refused)) == ["DENIED", "DENIED"]
    await bench.load(USER, limit(most=5), version=2)
    assert names(await bench.record(event(3, key="k"))) == ["RECORDED"]


@pytest.mark.parametrize("harm", ["exhausted", "gone", "blocked", "full", "untimely", "period"])
async def test_a_replay_wins_over_everything_that_changed_since(still: Bench, harm: str) -> None:
    first_time = await still.now()
    await still.load(USER, limit(most=3))
    first = await record_one(still, event(3, key="k", occurred_at=first_time))
    cap, occurred_at = 1000, first_time
    if harm == "gone":
        await still.server.run("DEL", still.quota_key(USER))
    elif harm == "blocked":
        await still.load(USER, limit(most=3), version=2, blocked="paused")
    elif harm == "full":
        cap = 1
    elif harm == "untimely":
        await still.load(USER, limit(most=3), version=2)
        occurred_at = first_time + DAY_MS
    elif harm == "period":
        await still.load(USER, limit(most=3), version=2, ends=first_time + 1)
        await still.move(ms=1)
    recorded = await still.record(event(3, key="k", occurred_at=occurred_at), cap=cap)
    assert recorded.answers[0].outcome is Outcome.REPLAYED
    assert numbers(recorded.answers[0]) == numbers(first)


async def test_without_a_key_nothing_is_remembered_and_each_time_counts(bench: Bench) -> None:
    await bench.load(USER, limit())
    one = event()
    assert names(await bench.record(one, one)) == ["RECORDED", "RECORDED"]
    assert await bench.receipts() == 0
    assert await bench.used() == 2


async def test_a_key_is_found_whichever_account_of_the_partition_retries(bench: Bench) -> None:
    for subject in (USER, MEMBER, POOL):
        await bench.load(subject, limit())
    await bench.record(event(key="k"))
    assert names(await bench.record(event(who=MEMBER, key="k"))) == ["REPLAYED"]
    assert await bench.used(POOL) == 0


@pytest.mark.parametrize("made_h", [0, 6, 11, 12, 13, 23])
@pytest.mark.parametrize("made_ms", [0, HOUR_MS - 1])
async def test_a_receipt_is_found_for_24_hours_and_at_most_48_across_midnights(
    still: Bench, made_h: int, made_ms: int
) -> None:
    await still.load(USER, limit(most=100))
    await still.move(ms=made_h * HOUR_MS + made_ms)
    first = await record_one(still, event(key="k"))
    for step in [1, HOUR_MS - 1, *[HOUR_MS] * 23]:
        await still.move(ms=step)
        again = await record_one(still, event(key="k"))
        assert again.outcome is Outcome.REPLAYED
        assert numbers(again) == numbers(first)
    assert await still.now() == first.recorded_at + DAY_MS
    await still.move(hours=24)
    assert (await record_one(still, event(key="k"))).outcome is Outcome.RECORDED


async def test_a_receipt_is_forgotten_when_the_day_after_its_own_ends(still: Bench) -> None:
    await still.move(hours=12)
    await still.load(USER, limit(most=100))
    await still.record(event(key="k"))  # in the first instant of a day
    await still.move(us=2 * DAY_MS * 1000 - 1)
    assert names(await still.record(event(key="k"))) == ["REPLAYED"]
    await still.move(us=1)
    assert names(await still.record(event(key="k"))) == ["RECORDED"]


async def test_a_receipt_of_a_days_last_instant_is_found_for_24_hours(still: Bench) -> None:
    await still.move(us=12 * HOUR_MS * 1000 - 1)
    await still.load(USER, limit(most=100))
    await still.record(event(key="k"))
    await still.move(us=DAY_MS * 1000)
    assert names(await still.record(event(key="k"))) == ["REPLAYED"]
    await still.move(us=1)
    assert names(await still.record(event(key="k"))) == ["RECORDED"]


async def test_a_look_up_does_not_move_a_receipt_to_another_day(still: Bench) -> None:
    await still.load(USER, limit(most=100))
    await still.record(event(key="k"))
    before = await still.state()
    await still.move(hours=24)
    assert names(await still.record(event(key="k"), event(key="k"))) == ["REPLAYED"] * 2
    after = await still.state()
    assert {key: after[key] for key in before if key != still.meta_key} == {
        key: before[key] for key in before if key != still.meta_key
    }


async def test_receipts_outlive_their_last_look_up_and_then_expire(bench: Bench) -> None:
    await bench.load(USER, limit(most=100))
    await bench.record(event(key="k"))
    [key] = await bench.keys("receipt:*")
    assert 48 * 3600 - 60 < await bench.server.run("TTL", key) <= 48 * 3600


def twin_of(one: Event, flipped: int = 0, last: bytes = b"-") -> Event:
    """Another key: the same 16 bits that a shard is taken of, but for those that are flipped."""
    first = bytes([one.usage_id[0] ^ flipped])
    return msgspec.structs.replace(one, usage_id=first + one.usage_id[1:2] + bytes(13) + last)


@pytest.mark.parametrize("bits", [0, 0x10, 0xF0])
async def test_a_shard_lives_from_its_first_receipt_on(still: Bench, bits: int) -> None:
    """Long enough for every later one, since all of a day are looked for until the next ends."""
    first = event(key="k")
    twin = twin_of(first, bits)
    await still.load(USER, limit(most=100))
    await still.record(first)
    [key] = await still.keys("receipt:*")
    await still.server.run("EXPIRE", key, 1000)
    await still.record(twin)
    assert await still.keys("receipt:*") == [key]
    assert await still.receipts() == 2
    assert await still.server.run("TTL", key) <= 1000
    assert names(await still.record(first, twin)) == ["REPLAYED"] * 2


@pytest.mark.parametrize("bits", [0x01, 0x08])
async def test_the_other_bits_name_another_shard(still: Bench, bits: int) -> None:
    first = event(key="k")
    await still.load(USER, limit(most=100))
    await still.record(first, twin_of(first, bits))
    assert len(await still.keys("receipt:*")) == 2


async def test_every_shard_is_one_of_4096(still: Bench) -> None:
    await still.load(USER, limit(most=None))
    one = event(key="k")
    ends = [bytes(pair) for pair in ((0, 0), (0, 1), (1, 0), (15, 255), (16, 0), (255, 255))]
    said = [msgspec.structs.replace(one, usage_id=two + bytes(14)) for two in ends]
    assert names(await still.record(*said)) == ["RECORDED"] * len(said)
    shards = {int(key.split(":")[-1]) for key in await still.keys("receipt:*")}
    assert shards == {0, 1, 256, 4095}
    assert await still.receipts() == len(said)


async def test_only_the_first_receipt_of_a_hash_says_when_it_expires(still: Bench) -> None:
    """Time to live and the field that says so come together, once for all receipts of a day."""
    await still.load(USER, limit(most=100))
    first = event(key="k")
    expires = await still.calls("expire")
    await still.record(event(), event())
    assert await still.calls("expire") == expires  # no receipts, and the quota was just loaded
    await still.record(first)
    assert await still.calls("expire") == expires + 1
    [key] = await still.keys("receipt:*")
    assert await still.server.run("HGET", key, MARKER) == b""
    assert 48 * 3600 - 60 < await still.server.run("TTL", key) <= 48 * 3600

    await still.server.run("HSET", key, MARKER, "as it was")
    for last in (b"a", b"b", b"c"):
        assert names(await still.record(twin_of(first, last=last), event())) == ["RECORDED"] * 2
    assert names(await still.record(first)) == ["REPLAYED"]
    assert await still.calls("expire") == expires + 1
    assert await still.server.run("HGET", key, MARKER) == b"as it was"
    assert await still.receipts() == 4


async def test_two_first_receipts_of_a_hash_in_one_call_are_both_kept(still: Bench) -> None:
    await still.load(USER, limit(most=100))
    first = event(key="k")
    twin = twin_of(first)
    recorded = await still.record(first, twin, first, twin)
    assert names(recorded) == ["RECORDED", "RECORDED", "REPLAYED", "REPLAYED"]
    [key] = await still.keys("receipt:*")
    assert await still.receipts() == 2
    assert 48 * 3600 - 60 < await still.server.run("TTL", key) <= 48 * 3600
    assert names(await still.record(first, twin)) == ["REPLAYED"] * 2


async def test_the_next_days_hash_has_a_life_of_its_own(still: Bench) -> None:
    """That yesterday's will expire says nothing of today's."""
    await still.load(USER, limit(most=100))
    first = event(key="k")
    await still.record(first)
    await still.move(hours=24)
    expires = await still.calls("expire")
    assert names(await still.record(twin_of(first), first)) == ["RECORDED", "REPLAYED"]
    assert await still.calls("expire") == expires + 2  # and the quota's life is renewed
    assert len(await still.keys("receipt:*")) == await still.receipts() == 2


async def test_a_hash_without_the_marker_is_given_it_and_a_life(still: Bench) -> None:
    await still.load(USER, limit(most=100))
    first = event(key="k")
    await still.record(first)
    [key] = await still.keys("receipt:*")
    await still.server.run("HDEL", key, MARKER)
    await still.server.run("PERSIST", key)
    await still.record(twin_of(first))
    assert await still.receipts() == 2
    assert await still.server.run("TTL", key) > 0


async def test_receipts_of_many_keys_spread_over_small_hashes(bench: Bench) -> None:
    await bench.load(USER, limit(most=None))
    await bench.record(*(event(key=f"k{number}") for number in range(1000)))
    assert await bench.receipts() == 1000
    sizes = [await bench.server.run("HLEN", key) for key in await bench.keys("receipt:*")]
    assert max(sizes) < 10
    [fields] = {await bench.server.run("OBJECT", "ENCODING", (await bench.keys("receipt:*"))[0])}
    assert fields == b"listpack"


# Asking the ledger: LOOK_UP


@pytest.mark.parametrize(
    ("looked_up", "outcome"),
    [
        (LookedUp.NOT_YET, Outcome.LOOK_UP),
        (LookedUp.UNKNOWN, Outcome.DENIED),
        (LookedUp.UNREACHABLE, Outcome.DENIED),
    ],
)
async def test_a_key_that_would_be_denied_is_looked_up_first(
    bench: Bench, looked_up: LookedUp, outcome: Outcome
) -> None:
    await bench.load(USER, limit(most=2))
    before = await bench.state()
    answer = await record_one(bench, event(3, key="k", looked_up=looked_up))
    assert answer.outcome is outcome
    assert await bench.state() == before


@pytest.mark.parametrize(
    ("looked_up", "outcome"),
    [
        (LookedUp.NOT_YET, Outcome.LOOK_UP),
        (LookedUp.UNKNOWN, Outcome.RATE_LIMITED),
        (LookedUp.UNREACHABLE, Outcome.RATE_LIMITED),
    ],
)
async def test_a_key_that_would_be_rate_limited_is_looked_up_first(
    still: Bench, looked_up: LookedUp, outcome: Outcome
) -> None:
    await still.load(USER, limit(most=None, rate=2, window_s=60))
    await still.record(event(2))
    answer = await record_one(still, event(1, key="k", looked_up=looked_up))
    assert answer.outcome is outcome


@pytest.mark.parametrize("refusal", ["UNTIMELY", "BLOCKED", "OVERFLOW"])
async def test_a_key_that_would_be_refused_for_good_is_looked_up_first(
    still: Bench, refusal: str
) -> None:
    blocked = "paused" if refusal == "BLOCKED" else ""
    used = MAX_UNITS if refusal == "OVERFLOW" else 0
    await still.load(USER, limit(most=None, used=used), blocked=blocked)
    occurred_at = await still.now() - 36 * DAY_MS if refusal == "UNTIMELY" else None
    before = await still.state()
    said = [event(key="k", occurred_at=occurred_at, looked_up=one) for one in LookedUp]
    found = names(await still.record(*said, event(occurred_at=occurred_at)))
    assert found == ["LOOK_UP", refusal, refusal, refusal]
    assert await still.state() == before


async def test_a_full_partition_is_not_a_refusal_to_look_up(bench: Bench) -> None:
    await bench.load(USER, limit())
    assert names(await bench.record(event(key="k"), cap=0)) == ["FULL"]


async def test_without_a_key_there_is_nothing_to_look_up(bench: Bench) -> None:
    await bench.load(USER, limit(most=2))
    assert names(await bench.record(event(3))) == ["DENIED"]


async def test_not_enforced_nothing_is_denied_and_so_nothing_is_looked_up(bench: Bench) -> None:
    await bench.load(USER, limit(most=2))
    assert (await record_one(bench, event(3, key="k"), enforce=False)).outcome is Outcome.RECORDED


@pytest.mark.parametrize(
    ("since_ms", "forgetful"), [(0, True), (DAY_MS - 1, True), (DAY_MS, False)]
)
async def test_for_24_hours_after_a_loss_every_unknown_key_is_looked_up(
    still: Bench, since_ms: int, forgetful: bool
) -> None:
    await still.load(USER, limit(most=100))
    await still.hset(still.meta_key, bumped_at=await still.now() - since_ms)
    recorded = await still.record(
        event(key="a"),
        event(key="b", looked_up=LookedUp.UNREACHABLE),
        event(key="c", looked_up=LookedUp.UNKNOWN),
        event(),
    )
    unsure = "LOOK_UP" if forgetful else "RECORDED"
    assert names(recorded) == [unsure, unsure, "RECORDED", "RECORDED"]


async def test_a_receipt_made_since_the_loss_spares_the_look_up(still: Bench) -> None:
    await still.load(USER, limit(most=100))
    await still.hset(still.meta_key, bumped_at=await still.now())
    known = event(key="k", looked_up=LookedUp.UNKNOWN)
    assert names(await still.record(known, event(key="k"))) == ["RECORDED", "REPLAYED"]
    assert names(await still.record(event(key="k"))) == ["REPLAYED"]


async def test_a_miss_comes_before_a_look_up_for_denial(bench: Bench) -> None:
    assert names(await bench.record(event(key="k"))) == ["MISS"]
