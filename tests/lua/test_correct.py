"""The correct script: counts where what it corrects is counted, once, and says so in the stream."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from ledger.domain.quantity import MAX_UNITS
from ledger.domain.usage import UsageRecord, parse_entry
from lua import keys
from lua.packing import NONE, pack_said
from lua.types import Answer, Fenced, Outcome
from tests.domain import examples
from tests.lua.kit import CAP, DAY_MS, MEMBER, POOL, USER, Bench, event, limit, usage_id

DAY = date(2026, 3, 1)


async def correct(
    bench: Bench, units: int = -4, *, who: bytes = USER, body: bytes = b"samebody", **said: Any
) -> Answer:
    """Of usage of the period that the bench loads."""
    starts = await bench.now() // DAY_MS * DAY_MS - 40 * DAY_MS
    payload = examples.payload(reversal_of=usage_id("original"))
    usual: dict[str, Any] = {
        "cap": CAP,
        "said": pack_said(usage_id("correction"), body, "calls", who, payload),
        "units": units,
        "starts": starts,
        "pool_starts": starts if who == MEMBER else NONE,
        "terms": examples.terms(plan_tier="then"),
        "period": DAY.toordinal(),
    }
    return await bench.scripts.correct(bench.partition, who, keys.pool_of(who), **(usual | said))


async def newest(bench: Bench) -> UsageRecord:
    """The last entry, as the drain reads it."""
    tail = await bench.scripts.read(bench.partition, after="0-0", count=100)
    return parse_entry(*tail.entries[-1])


async def test_it_is_counted_and_appended_with_the_terms_of_what_it_corrects(still: Bench) -> None:
    await still.load(USER, limit(most=10, used=9))
    answer = await correct(still)
    assert answer == Answer(Outcome.RECORDED, await still.now(), 5, 0)
    assert await still.used() == 5
    record = await newest(still)
    assert (record.units, record.used_after, record.remaining) == (-4, 5, 5)
    assert (record.terms.plan_tier, record.billing_period) == ("then", DAY)
    assert record.payload.reversal_of == usage_id("original")
    assert (record.enforced, record.pool_used_after, record.pool_period) == (False, None, None)


async def test_a_member_and_the_pool_are_counted(still: Bench) -> None:
    await still.load(MEMBER, limit(most=10, used=6))
    await still.load(POOL, limit(most=100, used=98))
    assert (await correct(still, who=MEMBER)).remaining == 6
    assert (await still.used(MEMBER), await still.used(POOL)) == (2, 94)
    record = await newest(still)
    assert (record.used_after, record.pool_used_after) == (2, 94)


async def test_of_two_counters_the_one_that_is_there_is_counted(still: Bench) -> None:
    await still.load(POOL, limit(most=100, used=98))
    assert (await correct(still, who=MEMBER)).remaining is None
    assert await still.used(POOL) == 94
    record = await newest(still)
    assert (record.used_after, record.pool_used_after) == (None, 94)


async def test_a_counter_of_another_period_is_left_alone(still: Bench) -> None:
    await still.load(USER, limit(used=9))
    answer = await correct(still, starts=examples.STARTS)
    assert (answer.outcome, answer.remaining) == (Outcome.RECORDED, None)
    assert await still.used() == 9
    record = await newest(still)
    assert (record.used_after, record.quota_period) == (None, examples.STARTS)


async def test_a_quota_that_is_loaded_later_counts_it(still: Bench) -> None:
    assert (await correct(still)).outcome is Outcome.RECORDED
    await still.load(USER, limit(used=9))
    assert await still.used() == 5


async def test_no_limit_and_no_window_stops_it(still: Bench) -> None:
    await still.load(USER, limit(most=10, used=10, rate=1, window_s=60))
    answer = await correct(still, 5)
    assert (answer.outcome, answer.remaining, answer.exceeded) == (Outcome.RECORDED, 0, 1)
    await still.load(USER, limit(most=100, used=0, rate=1, window_s=60), version=2)
    assert (await still.record(event(1))).answers[0].outcome is Outcome.RECORDED


async def test_once_sent_it_is_repeated_and_not_counted_again(still: Bench) -> None:
    await still.load(USER, limit(used=9))
    first = await correct(still)
    for hours in (0, 12, 12):  # receipts of yesterday too
        await still.move(hours=hours)
        again = await correct(still)
        assert again.outcome is Outcome.REPLAYED
        assert (again.recorded_at, again.remaining) == (first.recorded_at, first.remaining)
    assert (await correct(still, body=b"another!")).outcome is Outcome.CONFLICT
    assert await still.used() == 5
    assert len(await still.entries()) == 1


@pytest.mark.parametrize(
    ("used", "said", "outcome"),
    [
        (MAX_UNITS - 3, {"units": 4}, Outcome.OVERFLOW),
        (0, {"cap": 0}, Outcome.FULL),
    ],
)
async def test_what_is_refused_writes_nothing(
    still: Bench, used: int, said: dict[str, Any], outcome: Outcome
) -> None:
    await still.load(MEMBER, limit(used=1))
    await still.load(POOL, limit(used=used))
    before = await still.state()
    assert (await correct(still, who=MEMBER, **said)).outcome is outcome
    assert await still.state() == before


async def test_a_server_that_is_not_vouched_for_takes_none(still: Bench) -> None:
    await still.hset(still.meta_key, replid="another")
    before = await still.state()
    with pytest.raises(Fenced):
        await correct(still)
    assert await still.state() == before
