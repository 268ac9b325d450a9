"""Fees are shared by time, exactly, and no share is lost between the parts."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledger.domain.period import Period, Span, period_at
from ledger.domain.proration import Advance, prorated_change, share, split_by_time

FEE = Decimal("499.00")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


def month(year: int, number: int, timezone: str = "UTC") -> Period:
    return period_at(utc(year, number, 15), date(2020, 1, 1), "month", timezone)


LEAP_DAYS = [date(2028, 1, 1) + timedelta(days=day) for day in range(366)]


@pytest.mark.parametrize("day", LEAP_DAYS, ids=str)
def test_a_change_on_any_day_of_a_leap_year_gives_back_what_that_days_share_says(day: date) -> None:
    period = month(day.year, day.month)
    at = utc(day.year, day.month, day.day)
    days = period.microseconds // 86_400_000_000
    left = Fraction(days - day.day + 1, days)
    old = Advance("old", 1, Decimal("100.00"), period)
    new = Advance("new", 2, FEE, period)
    lines, paid = prorated_change(old, new, at, "USD")
    amounts = {line.kind: line.amount for line in lines}
    for amount, fee in ((-amounts["credit"], 100), (amounts["proration"], 499)):
        assert abs(Fraction(amount) - fee * left) <= Fraction(1, 200)
    assert paid == Advance("new", 2, amounts["proration"], Span(at, period.end))
    assert sum(split_by_time(FEE, period, [at], "USD")) == FEE


def test_an_hour_more_or_less_counts_where_clocks_change() -> None:
    march = month(2026, 3, "America/New_York")
    half = march.start + (march.end - march.start) / 2
    assert march.microseconds == (31 * 24 - 1) * 3_600_000_000
    assert share(Decimal("10.00"), march, Span(march.start, half), "USD") == Decimal("5.00")


def test_a_microsecond_before_the_end_is_still_the_old_plans() -> None:
    period = month(2026, 3)
    at = period.end - timedelta(microseconds=1)
    old, new = Advance("old", 1, FEE, period), Advance("new", 1, FEE * 2, period)
    assert prorated_change(old, new, at, "USD")[0] == []


def test_two_lines_say_what_is_given_back_and_what_is_charged() -> None:
    period = month(2026, 4)
    at = utc(2026, 4, 21)
    old, new = Advance("basic", 3, Decimal("30.00"), period), Advance("pro", 4, FEE, period)
    lines, _ = prorated_change(old, new, at, "USD")
    assert [(one.kind, one.plan_tier, one.plan_version, one.amount) for one in lines] == [
        ("credit", "basic", 3, Decimal("-10.00")),
        ("proration", "pro", 4, Decimal("166.33")),
    ]
    assert {one.span for one in lines} == {Span(at, period.end)}


def test_a_second_change_gives_back_a_share_of_what_the_first_one_charged() -> None:
    period = month(2026, 4)
    first, second, third = (Advance(f"plan{n}", 1, Decimal(f"{n}00.00"), period) for n in (1, 2, 3))
    _, paid = prorated_change(first, second, utc(2026, 4, 11), "USD")
    lines, _ = prorated_change(paid, third, utc(2026, 4, 16), "USD")
    assert paid.amount == Decimal("133.33")
    assert [one.amount for one in lines] == [Decimal("-100.00"), Decimal("150.00")]


def test_without_anything_paid_only_the_rest_is_charged() -> None:
    period = month(2026, 4)
    [line], paid = prorated_change(None, Advance("pro", 1, FEE, period), utc(2026, 4, 16), "USD")
    assert (line.kind, line.amount) == ("proration", Decimal("249.50"))
    assert paid.amount == line.amount


def test_an_instant_outside_the_period_is_refused() -> None:
    period = month(2026, 4)
    for at in (utc(2026, 3, 31), utc(2026, 5, 2)):
        with pytest.raises(ValueError, match="weights"):
            prorated_change(None, Advance("pro", 1, FEE, period), at, "USD")


fees = st.integers(0, 10**9).map(lambda cents: Decimal(cents).scaleb(-2))
instants = st.lists(st.integers(0, 30 * 86_400), max_size=6).map(sorted)


@given(fees, instants)
def test_the_parts_of_a_fee_sum_to_it_wherever_it_is_cut(fee: Decimal, cuts: list[int]) -> None:
    period = month(2026, 4)
    parts = split_by_time(
        fee, period, [period.start + timedelta(seconds=cut) for cut in cuts], "USD"
    )
    assert sum(parts) == fee
    assert min(parts) >= 0


@given(st.lists(fees, min_size=2, max_size=6), instants)
@example([Decimal(0), Decimal(0), Decimal(0)], [30 * 86_400, 30 * 86_400])
def test_changes_in_one_period_never_give_back_more_than_was_paid(
    of_plans: list[Decimal], cuts: list[int]
) -> None:
    period = month(2026, 4)
    paid = Advance("plan0", 1, of_plans[0], period)
    for number, (fee, cut) in enumerate(zip(of_plans[1:], cuts, strict=False), start=1):
        at = period.start + timedelta(seconds=cut)
        lines, after = prorated_change(paid, Advance(f"plan{number}", 1, fee, period), at, "USD")
        back = sum(-one.amount for one in lines if one.kind == "credit")
        assert 0 <= back <= paid.amount
        paid = after
