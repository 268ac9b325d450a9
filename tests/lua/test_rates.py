"""Rate windows: a burst of the limit, then as fast as the window refills."""

from __future__ import annotations

import pytest

from lua.types import Answer, Outcome
from tests.lua.kit import MEMBER, POOL, USER, Bench, event, limit

RECORDED, RATE_LIMITED = Outcome.RECORDED, Outcome.RATE_LIMITED


async def burst(bench: Bench, *units: int, enforce: bool = True) -> list[Answer]:
    return (await bench.record(*(event(one) for one in units), enforce=enforce)).answers


def kinds(answers: list[Answer]) -> list[Outcome]:
    return [one.outcome for one in answers]


@pytest.mark.parametrize("rate", [1, 2, 3, 5, 6, 10, 600])
async def test_a_burst_of_exactly_the_limit_passes_at_once(still: Bench, rate: int) -> None:
    await still.load(USER, limit(most=None, rate=rate, window_s=60))
    answers = await burst(still, *[1] * (rate + 1))
    assert kinds(answers) == [RECORDED] * rate + [RATE_LIMITED]
    assert await still.used() == rate


@pytest.mark.parametrize("rate", [7, 11, 13, 700])
async def test_a_burst_of_the_limit_passes_when_it_does_not_divide_the_window(
    still: Bench, rate: int
) -> None:
    await still.load(USER, limit(most=None, rate=rate, window_s=60))
    answers = await burst(still, *[1] * (rate + 1))
    assert kinds(answers) == [RECORDED] * rate + [RATE_LIMITED]


async def test_the_wait_is_exact(still: Bench) -> None:
    await still.load(USER, limit(most=None, rate=10, window_s=60))
    [_, answer] = await burst(still, 10, 1)
    assert (answer.outcome, answer.detail) == (RATE_LIMITED, [6000, 60])
    assert (answer.scope, answer.limit, answer.remaining, answer.exceeded) == (1, 10, 0, 1)
    await still.move(us=5_999_999)
    [answer] = await burst(still, 1)
    assert (answer.outcome, answer.detail) == (RATE_LIMITED, [1, 60])
    await still.move(us=1)
    assert kinds(await burst(still, 1)) == [RECORDED]


async def test_a_window_that_the_limit_does_not_divide_gives_no_unit_back_too_early(
    still: Bench,
) -> None:
    await still.load(USER, limit(most=None, rate=7, window_s=60))
    await burst(still, 7)
    for _ in range(7):  # 60 s / 7 are 8 571 428.57 us
        await still.move(us=8_571_428)
        assert (await burst(still, 1))[0].detail == [1, 60]
        await still.move(us=1)
        assert kinds(await burst(still, 1, 1)) == [RECORDED, RATE_LIMITED]


async def test_parts_of_a_unit_are_not_lost_between_calls(still: Bench) -> None:
    await still.load(USER, limit(most=None, rate=7, window_s=60))
    await burst(still, 7)
    admitted = 0
    for _ in range(600):  # five minutes: 35 units come back, a little of each in every step
        await still.move(ms=500)
        admitted += kinds(await burst(still, 1)).count(RECORDED)
    assert 34 <= admitted <= 35


@pytest.mark.parametrize("spent", [1, 3, 7])
async def test_what_is_spent_is_kept_and_so_is_when(still: Bench, spent: int) -> None:
    await still.load(USER, limit(most=None, rate=7, window_s=60))
    await burst(still, spent)
    fields = await still.hash(still.quota_key(USER))
    assert int(fields["spent:calls"]) == spent
    assert int(fields["spent_at:calls"]) == still.now_us
    assert kinds(await burst(still, 8 - spent, 7 - spent or 1)) == [
        RATE_LIMITED, RECORDED if spent < 7 else RATE_LIMITED
    ]  # fmt: skip


async def test_units_weigh_and_the_window_refills_evenly(still: Bench) -> None:
    await still.load(USER, limit(most=None, rate=60, window_s=60))
    assert kinds(await burst(still, 50, 11, 10)) == [RECORDED, RATE_LIMITED, RECORDED]
    await still.move(ms=25_000)
    [answer, *others] = await burst(still, 26, 25, 1)
    assert (answer.outcome, answer.remaining, answer.detail) == (RATE_LIMITED, 25, [1000, 60])
    assert kinds(others) == [RECORDED, RATE_LIMITED]


async def test_an_idle_window_gives_a_full_burst_and_not_more(still: Bench) -> None:
    await still.load(USER, limit(most=None, rate=5, window_s=10))
    await burst(still, 5)
    await still.move(hours=5)
    assert kinds(await burst(still, 5, 1)) == [RECORDED, RATE_LIMITED]


async def test_a_refused_event_costs_nothing(still: Bench) -> None:
    await still.load(USER, limit(most=None, rate=5, window_s=10))
    await burst(still, 5)
    for _ in range(20):
        assert kinds(await burst(still, 1)) == [RATE_LIMITED]
    await still.move(ms=2000)
    assert kinds(await burst(still, 1)) == [RECORDED]


async def test_more_than_the_window_ever_holds_is_refused_with_a_wait_of_a_window(
    still: Bench,
) -> None:
    await still.load(USER, limit(most=None, rate=1, window_s=86_400))
    for units in (2, 10**6, 9 * 10**15):
        [answer] = await burst(still, units)
        assert (answer.outcome, answer.remaining) == (RATE_LIMITED, 1)
        assert answer.detail == [86_400_000, 86_400]


async def test_a_period_limit_outranks_a_window(still: Bench) -> None:
    await still.load(USER, limit(most=5, rate=5, window_s=10))
    [_, answer] = await burst(still, 5, 1)
    assert (answer.outcome, answer.limit) == (Outcome.DENIED, 5)


async def test_the_slower_of_two_windows_binds_and_is_named(still: Bench) -> None:
    await still.load(MEMBER, limit(most=None, rate=2, window_s=10))
    await still.load(POOL, limit(most=None, rate=3, window_s=60))
    answers = (await still.record(*(event(1, who=MEMBER) for _ in range(3)))).answers
    assert (answers[2].scope, answers[2].limit, answers[2].detail) == (1, 2, [5000, 10])
    await still.move(ms=10_000)
    answers = (await still.record(*(event(1, who=MEMBER) for _ in range(3)))).answers
    assert kinds(answers) == [RECORDED, RATE_LIMITED, RATE_LIMITED]
    assert (answers[2].scope, answers[2].limit, answers[2].detail) == (2, 3, [10_000, 60])


async def test_a_soft_period_limit_does_not_soften_its_window(still: Bench) -> None:
    await still.load(USER, limit(enforcement="s", most=1, rate=5, window_s=10))
    assert kinds(await burst(still, 5, 1)) == [RECORDED, RATE_LIMITED]


async def test_a_shadow_window_is_only_watched(still: Bench) -> None:
    await still.load(USER, limit(enforcement="w", most=1, rate=5, window_s=10))
    assert kinds(await burst(still, 5, 5, 5)) == [RECORDED] * 3


async def test_not_enforced_a_window_refuses_nothing_and_fills_no_further_than_full(
    still: Bench,
) -> None:
    await still.load(USER, limit(most=None, rate=5, window_s=10))
    assert kinds(await burst(still, *[5] * 10, enforce=False)) == [RECORDED] * 10
    assert kinds(await burst(still, 1)) == [RATE_LIMITED]
    await still.move(ms=2000)
    assert kinds(await burst(still, 1, 1)) == [RECORDED, RATE_LIMITED]


async def test_windows_do_not_show_in_what_remains(still: Bench) -> None:
    await still.load(USER, limit(most=100, rate=5, window_s=10))
    [answer] = await burst(still, 5)
    assert (answer.remaining, answer.exceeded, answer.limit) == (95, 0, 100)


async def test_a_replay_costs_the_window_nothing(still: Bench) -> None:
    await still.load(USER, limit(most=None, rate=2, window_s=10))
    answers = (await still.record(event(key="k"), event(key="k"), event(key="k"), event())).answers
    assert [one.outcome.name for one in answers] == [
        "RECORDED", "REPLAYED", "REPLAYED", "RECORDED"
    ]  # fmt: skip


async def test_the_window_runs_on_the_servers_microseconds(bench: Bench) -> None:
    await bench.load(USER, limit(most=None, rate=10, window_s=86_400))
    before = await bench.now()
    recorded = await bench.record(*(event(1) for _ in range(11)))
    assert kinds(recorded.answers) == [RECORDED] * 10 + [RATE_LIMITED]
    assert recorded.answers[-1].detail == [8_640_000, 86_400]
    spent_at = int((await bench.hash(bench.quota_key(USER)))["spent_at:calls"])
    assert spent_at // 1000 == recorded.answers[0].recorded_at
    assert before <= recorded.answers[0].recorded_at <= await bench.now()
