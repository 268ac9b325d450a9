"""The record script counts and appends, or does neither."""

from __future__ import annotations

import pytest

from ledger.domain.quantity import MAX_UNITS
from ledger.domain.usage import Payload, Terms, encode_payload, encode_terms, parse_entry
from lua.types import Limit, Outcome
from tests.lua.kit import (
    DAY_MS,
    HOUR_MS,
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

RECORDED, DENIED, OVERFLOW, FULL = (
    Outcome.RECORDED, Outcome.DENIED, Outcome.OVERFLOW, Outcome.FULL,
)  # fmt: skip


async def outcomes(bench: Bench, *units: int, enforce: bool = True, cap: int = 1000) -> list[str]:
    """What becomes of events of these units, each in a call of its own."""
    found = []
    for one in units:
        recorded = await bench.record(event(one), enforce=enforce, cap=cap)
        found.append(recorded.answers[0].outcome.name)
    return found


async def test_usage_within_a_hard_limit_is_counted_and_appended(bench: Bench) -> None:
    await bench.load(USER, limit(most=10))
    before = await bench.now()
    recorded = await bench.record(event(4))
    [answer] = recorded.answers
    assert answer.outcome is RECORDED
    assert before <= answer.recorded_at <= await bench.now()
    assert (answer.remaining, answer.exceeded, answer.scope, answer.limit) == (6, 0, 1, 10)
    assert answer.starts <= answer.recorded_at < answer.ends
    assert await bench.used() == 4
    assert [one for one, _ in await bench.entries()] == [recorded.last_ids[PARTITION]]
    assert (await bench.standing()).undrained == 1


async def test_recording_writes_nothing_into_meta(bench: Bench) -> None:
    await bench.load(USER, limit(most=10))
    before = await bench.meta()
    await bench.record(event(1, key="k"), event(20), event(2))
    assert await bench.meta() == before


async def test_exactly_the_limit_is_allowed_and_one_more_is_not(bench: Bench) -> None:
    await bench.load(USER, limit(most=10))
    assert await outcomes(bench, 10, 1) == ["RECORDED", "DENIED"]
    recorded = await bench.record(event(1))
    assert (recorded.answers[0].remaining, recorded.answers[0].exceeded) == (0, 1)
    assert recorded.last_ids == {}
    assert await bench.used() == 10
    assert len(await bench.entries()) == 1


async def test_a_denied_event_leaves_room_for_a_smaller_one(bench: Bench) -> None:
    await bench.load(USER, limit(most=10, used=7))
    assert await outcomes(bench, 4, 3, 1) == ["DENIED", "RECORDED", "DENIED"]


async def test_a_soft_limit_counts_on_and_says_so_only_once_it_is_passed(bench: Bench) -> None:
    await bench.load(USER, limit(enforcement="s", most=10))
    first = (await bench.record(event(10))).answers[0]
    assert (first.outcome, first.remaining, first.exceeded) == (RECORDED, 0, 0)
    second = (await bench.record(event(5))).answers[0]
    assert (second.outcome, second.remaining, second.exceeded) == (RECORDED, 0, 1)
    assert await bench.used() == 15


async def test_a_shadow_limit_is_never_seen_by_the_caller(bench: Bench) -> None:
    await bench.load(USER, limit(enforcement="w", most=10))
    answer = (await bench.record(event(50))).answers[0]
    assert (answer.outcome, answer.remaining, answer.exceeded) == (RECORDED, None, 0)
    assert (answer.scope, answer.limit) == (0, 0)
    assert await bench.used() == 50


async def test_a_usage_type_outside_the_plan_is_denied_with_limit_zero(bench: Bench) -> None:
    await bench.load(USER, limit(enforcement="x", most=0))
    answer = (await bench.record(event(1))).answers[0]
    assert (answer.outcome, answer.remaining, answer.scope, answer.limit) == (DENIED, 0, 1, 0)


async def test_unlimited_has_no_remaining_and_no_limit(bench: Bench) -> None:
    await bench.load(USER, limit(most=None))
    answer = (await bench.record(event(10**12))).answers[0]
    assert (answer.outcome, answer.remaining, answer.exceeded) == (RECORDED, None, 0)
    assert (answer.scope, answer.limit) == (0, 0)
    assert await bench.used() == 10**12


async def test_usage_types_are_counted_apart(bench: Bench) -> None:
    await bench.load(USER, limit(most=1), limit("tokens", most=5))
    recorded = await bench.record(event(1), event(5, usage_type="tokens"), event(1))
    assert [one.outcome for one in recorded.answers] == [RECORDED, RECORDED, DENIED]
    assert [await bench.used(USER, name) for name in ("calls", "tokens")] == [1, 5]


async def test_two_usage_types_of_one_account_in_one_call_each_keep_count_and_window(
    still: Bench,
) -> None:
    """A quota hash then stands among the keys once for each type, the pool's like the user's."""
    for subject, most in ((MEMBER, 100), (POOL, 1000)):
        calls = limit(most=most, rate=8, window_s=60)
        await still.load(subject, calls, limit("tokens", most=most, rate=50, window_s=10, used=7))
    said = [(3, "calls"), (20, "tokens"), (4, "calls"), (30, "tokens"), (2, "calls"), (5, "tokens")]
    recorded = await still.record(*(event(n, who=MEMBER, usage_type=name) for n, name in said))
    assert [(one.outcome, one.remaining) for one in recorded.answers] == [
        (RECORDED, 97), (RECORDED, 73), (RECORDED, 93), (Outcome.RECORDED, 43),
        (Outcome.RATE_LIMITED, 1), (Outcome.RATE_LIMITED, 0),
    ]  # fmt: skip
    at = b"%d" % (NOON_MS * 1000)
    counted = {
        "used:calls": b"7", "spent:calls": b"7", "spent_at:calls": at,
        "used:tokens": b"57", "spent:tokens": b"50", "spent_at:tokens": at,
    }  # fmt: skip
    for subject in (MEMBER, POOL):
        fields = await still.hash(still.quota_key(subject))
        assert fields.items() >= counted.items()
    entries = [fields for _, fields in await still.entries()]
    assert [(one["type"], *map(int, one["quota"].split()[4:6])) for one in entries] == [
        (b"calls", 3, 3), (b"tokens", 27, 27), (b"calls", 7, 7), (b"tokens", 57, 57)
    ]  # fmt: skip

    await still.move(ms=1000)  # five tokens come back, and no call
    recorded = await still.record(*(event(n, who=MEMBER, usage_type=name) for n, name in said[4:]))
    assert [one.outcome for one in recorded.answers] == [Outcome.RATE_LIMITED, RECORDED]
    assert [await still.used(POOL, name) for name in ("calls", "tokens")] == [7, 62]


async def test_a_usage_type_refused_leaves_the_other_of_its_account_alone(bench: Bench) -> None:
    await bench.load(USER, limit(most=3), limit("tokens", most=0), limit("more", "n", None))
    before = await bench.hash(bench.quota_key(USER))
    kinds = ("tokens", "calls", "tokens", "more")
    recorded = await bench.record(*(event(2, usage_type=name) for name in kinds))
    assert [one.outcome for one in recorded.answers] == [DENIED, RECORDED, DENIED, RECORDED]
    after = await bench.hash(bench.quota_key(USER))
    assert after == before | {"used:calls": b"2", "used:more": b"2"}


@pytest.mark.parametrize(
    ("cap", "pool", "units", "outcome", "scope", "bound", "remaining"),
    [
        (10, 100, 4, RECORDED, 1, 10, 6),
        (100, 10, 4, RECORDED, 2, 10, 6),
        (10, 10, 4, RECORDED, 1, 10, 6),
        (10, 100, 11, DENIED, 1, 10, 10),
        (100, 10, 11, DENIED, 2, 10, 10),
        (5, 3, 11, DENIED, 2, 3, 3),
        (3, 5, 11, DENIED, 1, 3, 3),
        (None, 10, 11, DENIED, 2, 10, 10),
        (10, None, 11, DENIED, 1, 10, 10),
        (None, None, 11, RECORDED, 0, 0, None),
    ],
)
async def test_user_cap_and_pool_both_apply_and_the_binding_one_is_named(
    bench: Bench,
    cap: int | None,
    pool: int | None,
    units: int,
    outcome: Outcome,
    scope: int,
    bound: int,
    remaining: int | None,
) -> None:
    await bench.load(MEMBER, limit(most=cap))
    await bench.load(POOL, limit(most=pool))
    answer = (await bench.record(event(units, who=MEMBER))).answers[0]
    assert (answer.outcome, answer.scope, answer.limit) == (outcome, scope, bound)
    assert answer.remaining == remaining
    counted = units if outcome is RECORDED else 0
    assert [await bench.used(one) for one in (MEMBER, POOL)] == [counted, counted]


async def test_the_period_in_the_answer_is_that_of_the_limit_it_names(bench: Bench) -> None:
    today = await bench.now() // DAY_MS * DAY_MS
    await bench.load(MEMBER, limit(most=100))
    await bench.load(POOL, limit(most=10), starts=today, ends=today + 2 * DAY_MS)
    for units in (3, 30):
        answer = (await bench.record(event(units, who=MEMBER))).answers[0]
        assert (answer.starts, answer.ends) == (today, today + 2 * DAY_MS)


async def test_members_share_the_pool_and_have_caps_of_their_own(bench: Bench) -> None:
    for subject, most in ((MEMBER, 6), (OTHER_MEMBER, 6), (POOL, 10)):
        await bench.load(subject, limit(most=most))
    recorded = await bench.record(
        event(6, who=MEMBER), event(5, who=OTHER_MEMBER), event(4, who=OTHER_MEMBER)
    )
    assert [one.outcome for one in recorded.answers] == [RECORDED, DENIED, RECORDED]
    assert recorded.answers[1].scope == 2
    assert [await bench.used(one) for one in (MEMBER, OTHER_MEMBER, POOL)] == [6, 4, 10]


async def test_a_refused_event_of_a_call_changes_nothing_and_the_others_stand(
    bench: Bench,
) -> None:
    await bench.load(MEMBER, limit(most=100))
    await bench.load(POOL, limit(most=10))
    recorded = await bench.record(*(event(units, who=MEMBER) for units in (3, 20, 7, 1)))
    assert [one.outcome for one in recorded.answers] == [RECORDED, DENIED, RECORDED, DENIED]
    assert [await bench.used(one) for one in (MEMBER, POOL)] == [10, 10]
    assert len(await bench.entries()) == 2


@pytest.mark.parametrize("units", [1, 3, 7])
async def test_many_events_of_one_subject_in_one_call_never_exceed_its_limit(
    bench: Bench, units: int
) -> None:
    await bench.load(USER, limit(most=100, used=3))
    recorded = await bench.record(*(event(units) for _ in range(150)))
    admitted = [one for one in recorded.answers if one.outcome is RECORDED]
    assert len(admitted) == 97 // units
    assert await bench.used() == 3 + len(admitted) * units
    assert [one.remaining for one in admitted] == [
        97 - units * number for number in range(1, len(admitted) + 1)
    ]


async def test_not_enforced_everything_counts_and_entries_are_flagged(bench: Bench) -> None:
    await bench.load(USER, limit(most=10), limit("extra", "x", 0))
    assert await outcomes(bench, 10, 5, enforce=False) == ["RECORDED", "RECORDED"]
    answer = (await bench.record(event(1, usage_type="extra"), enforce=False)).answers[0]
    assert (answer.outcome, answer.remaining, answer.exceeded) == (RECORDED, 0, 1)
    flags = [fields["quota"].split()[-2:] for _, fields in await bench.entries()]
    assert flags == [[b"0", b"0"], [b"1", b"0"], [b"1", b"0"]]


async def test_the_count_stops_at_the_largest_exact_integer(bench: Bench) -> None:
    await bench.load(USER, limit(most=None, used=MAX_UNITS - 5))
    assert await outcomes(bench, 6, 5, 1) == ["OVERFLOW", "RECORDED", "OVERFLOW"]
    assert await bench.used() == MAX_UNITS
    assert (await bench.entries())[0][1]["quota"].split()[4] == b"%d" % MAX_UNITS


async def test_the_pools_count_stops_there_too_enforced_or_not(bench: Bench) -> None:
    await bench.load(MEMBER, limit(most=None))
    await bench.load(POOL, limit(most=None, used=MAX_UNITS))
    for enforce in (True, False):
        recorded = await bench.record(event(1, who=MEMBER), enforce=enforce)
        assert recorded.answers[0].outcome is OVERFLOW
    assert await bench.used(MEMBER) == 0


async def test_the_largest_quantity_is_counted_without_rounding(bench: Bench) -> None:
    await bench.load(USER, limit(most=MAX_UNITS))
    answer = (await bench.record(event(MAX_UNITS - 2))).answers[0]
    assert (answer.remaining, answer.limit) == (2, MAX_UNITS)
    assert await bench.used() == MAX_UNITS - 2


async def test_at_the_cap_of_undrained_entries_nothing_more_is_admitted(bench: Bench) -> None:
    await bench.load(USER, limit(most=100))
    recorded = await bench.record(*(event() for _ in range(5)), cap=3)
    assert [one.outcome for one in recorded.answers] == [RECORDED] * 3 + [FULL] * 2
    assert await outcomes(bench, 1, cap=3) == ["FULL"]
    meta = await bench.meta()
    await bench.scripts.trim(PARTITION, replid=meta["replid"], drained=2, through="")
    assert await outcomes(bench, 1, 1, 1, cap=3) == ["RECORDED", "RECORDED", "FULL"]


async def test_what_is_drained_and_still_in_the_stream_takes_no_room(bench: Bench) -> None:
    """Nor does trimming it make any: room is for what the ledger has not yet."""
    await bench.load(USER, limit(most=100))
    await bench.record(*(event() for _ in range(6)))
    replid, ids = (await bench.meta())["replid"], [one for one, _ in await bench.entries()]
    assert await outcomes(bench, 1, cap=6) == ["FULL"]
    for drained, through, room in ((4, "", 4), (5, ids[1], 1), (7, ids[3], 2), (7, ids[4], 0)):
        await bench.scripts.trim(PARTITION, replid=replid, drained=drained, through=through)
        assert (await bench.standing()).undrained == 6 - room
        recorded = await bench.record(*(event() for _ in range(room + 1)), cap=6)
        assert [one.outcome for one in recorded.answers] == [RECORDED] * room + [FULL]
    assert len(await bench.entries()) == 6 + 4 + 1 + 2 - 5


async def test_a_blocked_subscription_is_answered_with_its_reason(bench: Bench) -> None:
    await bench.load(USER, limit(most=100), blocked="paused")
    for enforce in (True, False):
        answer = (await bench.record(event(1), enforce=enforce)).answers[0]
        assert (answer.outcome, answer.detail) == (Outcome.BLOCKED, b"paused")
    assert await bench.entries() == []


async def test_an_entry_carries_what_the_header_says(bench: Bench) -> None:
    await bench.load(MEMBER, limit(most=10, used=1))
    await bench.load(POOL, limit(enforcement="s", most=5, used=4), starts=1)
    one = event(3, who=MEMBER, key="k")
    recorded = await bench.record(one)
    [(_, fields)] = await bench.entries()
    now = recorded.answers[0].recorded_at
    starts = now // DAY_MS * DAY_MS - 40 * DAY_MS
    assert fields == {
        "id": one.usage_id, "fingerprint": b"samebody", "who": MEMBER, "type": b"calls",
        "quota": b"3 %d %d 1 4 7 0 1 1" % (now, starts),
        "terms": TERMS, "payload": b"payload",
    }  # fmt: skip


@pytest.mark.parametrize("who", [USER, MEMBER], ids=["personal", "member"])
async def test_the_ledger_reads_back_what_the_script_wrote(bench: Bench, who: bytes) -> None:
    terms = Terms(b"s" * 16, "basic", 2, 738_000, "month", "UTC")
    payload = Payload("k", None, {"feature": "chat"}, "someone")
    await bench.load(who, limit(most=None), terms=encode_terms(terms))
    await bench.load(POOL, limit("calls", "n", None))
    one = event(3, who=who, key="k", payload=encode_payload(payload))
    recorded = await bench.record(one)
    [(stream_id, fields)] = (await bench.scripts.read(PARTITION, after="0-0", count=2)).entries
    record = parse_entry(stream_id, fields)
    assert (record.terms, record.payload, record.fingerprint) == (terms, payload, b"samebody")
    assert (record.usage_id, record.user_id) == (one.usage_id, who[-16:])
    assert (record.units, record.used_after) == (3, 3)
    assert record.recorded_at == recorded.answers[0].recorded_at
    assert (record.pool_used_after, record.remaining) == (3 if who == MEMBER else None, None)
    assert (record.exceeded, record.enforced) == (False, True)


async def test_counters_in_entries_follow_each_other_without_a_step_missing(bench: Bench) -> None:
    await bench.load(MEMBER, limit(most=100, used=2))
    await bench.load(POOL, limit(most=1000, used=50))
    await bench.record(*(event(units, who=MEMBER) for units in (1, 2, 3)))
    await bench.record(*(event(units, who=MEMBER) for units in (4, 200, 5)))
    parts = [fields["quota"].split() for _, fields in await bench.entries()]
    assert [(int(part[4]), int(part[5])) for part in parts] == [
        (3, 51), (5, 53), (8, 56), (12, 60), (17, 65)
    ]  # fmt: skip


async def test_use_renews_the_life_of_a_quota_once_an_hour(still: Bench) -> None:
    """So that after a use at least 23 of its 24 hours are left."""
    for subject in (MEMBER, POOL):
        await still.load(subject, limit(most=100))
    for _ in range(3):
        for subject in (MEMBER, POOL):
            await still.server.run("EXPIRE", still.quota_key(subject), 1000)
        await still.move(hours=1)
        seen_at = await still.now() - HOUR_MS
        await still.record(event(1, who=MEMBER), event(1, who=MEMBER))
        for subject in (MEMBER, POOL):
            assert await still.life(subject) <= 1000
            assert int((await still.hash(still.quota_key(subject)))["seen_at"]) == seen_at
        await still.move(ms=1)
        before = {one: await still.hash(still.quota_key(one)) for one in (MEMBER, POOL)}
        await still.record(event(1, who=MEMBER))
        for subject in (MEMBER, POOL):
            assert 86_000 < await still.life(subject) <= 86_400
            fields = await still.hash(still.quota_key(subject))
            changed = {"seen_at": b"%d" % await still.now(), "used:calls": fields["used:calls"]}
            assert fields == before[subject] | changed


async def test_use_of_any_usage_type_renews_the_life_of_the_quota(still: Bench) -> None:
    await still.load(USER, limit(most=100), limit("tokens", most=100))
    for kinds in (("calls", "tokens"), ("tokens",), ("calls",)):
        await still.server.run("EXPIRE", still.quota_key(USER), 1000)
        await still.move(hours=1)
        await still.record(*(event(usage_type=name) for name in kinds))
        assert await still.life(USER) <= 1000
        await still.move(ms=1)
        await still.record(*(event(usage_type=name) for name in kinds))
        assert 86_000 < await still.life(USER) <= 86_400
        fields = await still.hash(still.quota_key(USER))
        assert int(fields["seen_at"]) == await still.now()
        expires = await still.calls("expire")
        await still.record(*(event(usage_type=name) for name in ("calls", "tokens")))
        assert await still.calls("expire") == expires


async def test_only_what_is_recorded_renews_and_only_what_it_counts_on(still: Bench) -> None:
    for subject in (USER, MEMBER, POOL):
        await still.load(subject, limit(most=2))
        await still.server.run("EXPIRE", still.quota_key(subject), 1000)
    await still.move(hours=2)
    await still.record(event(1), event(3, who=MEMBER))
    assert await still.life(USER) > 86_000
    assert [await still.life(one) <= 1000 for one in (MEMBER, POOL)] == [True, True]


async def test_the_test_clock_does_not_renew_and_does_not_expire(bench: Bench) -> None:
    """Keys live by the server's clock, whatever the service's says."""
    await bench.hset(bench.meta_key, offset=-3 * DAY_MS)
    await bench.load(USER, limit(most=100))
    seen_at = int((await bench.hash(bench.quota_key(USER)))["seen_at"])
    assert abs(seen_at - await bench.now() - 3 * DAY_MS) < 60_000
    await bench.server.run("EXPIRE", bench.quota_key(USER), 1000)
    await bench.hset(bench.meta_key, offset=3 * DAY_MS)
    assert await outcomes(bench, 1) == ["RECORDED"]
    assert await bench.life(USER) <= 1000


async def test_payload_terms_and_ids_of_any_bytes_pass_unchanged(bench: Bench) -> None:
    everything = bytes(range(256))
    await bench.load(USER, Limit("calls", "h", None, 0, 0, 0), terms=everything)
    await bench.record(event(1, payload=everything[::-1]))
    [(_, fields)] = await bench.entries()
    assert (fields["terms"], fields["payload"]) == (everything, everything[::-1])
