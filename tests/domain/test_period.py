"""Billing periods tile time."""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledger.domain.period import Interval, Period, calendar_month, period_at, zone

# Offsets of a quarter hour, half-hour daylight saving, midnights that do not exist or come
# twice, daylight saving in the south, and the far east and west.
ZONES = [
    "UTC", "America/New_York", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe",
    "America/Sao_Paulo", "America/Havana", "Africa/Cairo", "Asia/Beirut", "America/Asuncion",
    "Africa/Casablanca", "America/Nuuk", "Pacific/Kiritimati", "Pacific/Pago_Pago", "America/Adak",
]  # fmt: skip
MOMENT = timedelta(microseconds=1)

zones = st.sampled_from(ZONES)
intervals: st.SearchStrategy[Interval] = st.sampled_from(["month", "year"])
anchors = st.dates(date(2012, 1, 1), date(2032, 12, 31))
instants = st.datetimes(datetime(2012, 1, 1), datetime(2045, 1, 1), timezones=st.just(UTC))


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


@given(instants, anchors, intervals, zones)
@example(utc(2024, 2, 29), date(2020, 2, 29), "year", "UTC")
@example(utc(2018, 11, 4, 2, 59), date(2018, 10, 4), "month", "America/Sao_Paulo")
def test_every_instant_lies_in_its_period_and_periods_meet_without_gap_or_overlap(
    instant: datetime, anchor: date, interval: Interval, timezone: str
) -> None:
    found = period_at(instant, anchor, interval, timezone)
    assert found.start <= instant < found.end
    assert instant in found
    for other in (found.start, found.end - MOMENT):
        assert period_at(other, anchor, interval, timezone) == found
    following = period_at(found.end, anchor, interval, timezone)
    assert following.start == found.end
    assert following.billing_date > found.billing_date
    before = period_at(found.start - MOMENT, anchor, interval, timezone)
    assert before.end == found.start


@given(instants, anchors, intervals, zones)
def test_a_period_begins_at_the_first_moment_of_the_anchors_day_in_the_customers_zone(
    instant: datetime, anchor: date, interval: Interval, timezone: str
) -> None:
    found = period_at(instant, anchor, interval, timezone)
    local = found.start.astimezone(zone(timezone))
    assert local.date() == found.billing_date
    assert (found.start - MOMENT).astimezone(zone(timezone)).date() < found.billing_date
    last = calendar.monthrange(local.year, local.month)[1]
    assert local.day == min(anchor.day, last)
    if interval == "year":
        assert local.month == anchor.month


@given(anchors, intervals, zones)
def test_the_first_period_begins_on_the_anchor_itself(
    anchor: date, interval: Interval, timezone: str
) -> None:
    noon = datetime(anchor.year, anchor.month, anchor.day, 12, tzinfo=zone(timezone))
    assert period_at(noon, anchor, interval, timezone).billing_date == anchor


@given(instants, anchors, intervals, zones)
def test_instants_before_the_anchor_have_periods_on_the_same_grid(
    instant: datetime, anchor: date, interval: Interval, timezone: str
) -> None:
    earlier = period_at(instant - timedelta(days=5000), anchor, interval, timezone)
    assert earlier.start <= instant - timedelta(days=5000) < earlier.end
    assert earlier.billing_date.day == min(
        anchor.day, calendar.monthrange(earlier.billing_date.year, earlier.billing_date.month)[1]
    )


def starts(anchor: date, interval: Interval, year: int, count: int) -> list[date]:
    found: list[Period] = [period_at(utc(year, 1, 31, 12), anchor, interval, "UTC")]
    while len(found) < count:
        found.append(period_at(found[-1].end, anchor, interval, "UTC"))
    return [one.billing_date for one in found]


@pytest.mark.parametrize(("year", "february"), [(2027, 28), (2028, 29), (2100, 28), (2000, 29)])
def test_the_31st_is_clamped_to_the_months_end_and_comes_back(year: int, february: int) -> None:
    assert starts(date(year - 1, 10, 31), "month", year, 5) == [
        date(year, 1, 31), date(year, 2, february), date(year, 3, 31), date(year, 4, 30),
        date(year, 5, 31),
    ]  # fmt: skip


def test_a_year_from_29_february_is_clamped_and_comes_back_in_leap_years() -> None:
    assert starts(date(2024, 2, 29), "year", 2025, 5) == [
        date(2024, 2, 29), date(2025, 2, 28), date(2026, 2, 28), date(2027, 2, 28),
        date(2028, 2, 29),
    ]  # fmt: skip


def test_a_month_in_which_clocks_change_is_an_hour_shorter_or_longer() -> None:
    hours = [
        period_at(utc(2026, month, 15), date(2026, 1, 1), "month", "America/New_York")
        for month in (3, 11)
    ]
    assert [one.end - one.start for one in hours] == [
        timedelta(days=31, hours=-1),
        timedelta(days=30, hours=1),
    ]


def test_a_midnight_that_does_not_exist_is_the_moment_the_clocks_jump() -> None:
    found = period_at(utc(2018, 11, 20), date(2018, 10, 4), "month", "America/Sao_Paulo")
    assert found.start == utc(2018, 11, 4, 3)
    assert found.start.astimezone(ZoneInfo("America/Sao_Paulo")).hour == 1


def test_the_same_instant_is_another_local_day_and_so_another_period() -> None:
    instant = utc(2026, 5, 1, 2)
    assert period_at(instant, date(2026, 1, 1), "month", "UTC").billing_date == date(2026, 5, 1)
    west = period_at(instant, date(2026, 1, 1), "month", "America/New_York")
    assert west.billing_date == date(2026, 4, 1)


@given(instants)
def test_the_calendar_month_is_that_of_utc(instant: datetime) -> None:
    found = calendar_month(instant)
    assert found.start == datetime(instant.year, instant.month, 1, tzinfo=UTC)
    assert found.billing_date == instant.date().replace(day=1)
    assert instant in found
    for one, other in pairwise([found, calendar_month(found.end)]):
        assert one.end == other.start
