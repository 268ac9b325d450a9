"""How long records are kept, at the edges; when the books must be open."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from ledger.domain.organization import RETENTION_YEARS, RetentionClass
from ledger.domain.retention import (
    Billed,
    Keeper,
    Refusal,
    access_to_books_until,
    kept_until,
    month_after,
    refusals,
    years_after,
)

CLINIC = UUID(int=1)
JANUARY = date(2018, 1, 1)
DAY = timedelta(days=1)


def keeper(**said: object) -> Keeper:
    return Keeper(organization_id=CLINIC, records=1, **said)  # type: ignore[arg-type]


def may_go(today: date, *keepers: Keeper) -> bool:
    return refusals(JANUARY, keepers, today) == []


@pytest.mark.parametrize(
    ("retention_class", "end"),
    [("standard", date(2025, 2, 1)), ("medicare_advantage", date(2028, 2, 1))],
)
def test_a_month_is_kept_until_its_class_ends_and_not_a_day_less(
    retention_class: RetentionClass, end: date
) -> None:
    one = keeper(retention_class=retention_class)
    assert not may_go(end - DAY, one)
    assert may_go(end, one) and may_go(end + DAY, one)
    [refusal] = refusals(JANUARY, [one], end - DAY)
    assert refusal == Refusal(JANUARY, CLINIC, "retained", end)


def test_a_record_of_medicare_advantage_survives_nine_years_and_364_days() -> None:
    recorded = date(2018, 1, 1)
    assert not may_go(
        years_after(recorded, 9) + 364 * DAY, keeper(retention_class="medicare_advantage")
    )
    assert not may_go(years_after(recorded, 10), keeper(retention_class="medicare_advantage"))


def test_the_years_are_counted_from_the_invoice_where_that_was_issued_later() -> None:
    assert kept_until(JANUARY, date(2019, 1, 3), "standard") == date(2026, 2, 1)
    assert kept_until(JANUARY, date(2017, 12, 31), "standard") == date(2025, 2, 1)


def test_a_hold_or_something_unsettled_keeps_a_month_for_ever() -> None:
    far = date(2500, 1, 1)
    assert refusals(JANUARY, [keeper(legal_hold=True)], far) == [
        Refusal(JANUARY, CLINIC, "legal_hold", None)
    ]
    assert [one.reason for one in refusals(JANUARY, [keeper(unsettled=True)], far)] == ["unsettled"]
    assert may_go(far, keeper())


def test_open_books_keep_a_month_through_their_last_day() -> None:
    until = date(2027, 5, 1)
    assert not may_go(until, keeper(books_until=until))
    assert may_go(until + DAY, keeper(books_until=until))
    assert refusals(JANUARY, [keeper(books_until=until)], until)[0].possible_on == until + DAY


def test_a_month_stays_for_whoever_needs_it_longest() -> None:
    both = (keeper(), keeper(retention_class="medicare_advantage"))
    assert not may_go(date(2026, 1, 1), *both)
    assert may_go(date(2028, 2, 1), *both)


def test_a_month_without_records_is_kept_as_any_other() -> None:
    assert not may_go(date(2025, 1, 31)) and may_go(date(2025, 2, 1))


def test_no_class_keeps_for_less_than_seven_years() -> None:
    assert min(RETENTION_YEARS.values()) == 7


def test_days_that_a_year_does_not_have_are_the_next() -> None:
    assert years_after(date(2024, 2, 29), 4) == date(2028, 2, 29)
    assert years_after(date(2024, 2, 29), 7) == date(2031, 3, 1)
    assert month_after(date(2024, 12, 31)) == date(2025, 1, 1)


def billed(*said: tuple[date, str]) -> list[Billed]:
    return [Billed(until, Decimal(amount)) for until, amount in said]


@pytest.mark.parametrize(
    ("amount", "until"),
    [("9999.99", None), ("10000.00", date(2030, 3, 1)), ("10000.01", date(2030, 3, 1))],
)
def test_books_are_open_from_exactly_ten_thousand(amount: str, until: date | None) -> None:
    assert access_to_books_until(billed((date(2026, 3, 1), amount))) == until


def test_twelve_months_are_summed_and_a_thirteenth_is_not() -> None:
    months = [(date(2025, month, 1), "833.34") for month in range(2, 13)]
    within = billed(*months, (date(2026, 1, 1), "833.34"))
    assert access_to_books_until(within) == date(2030, 1, 1)
    assert access_to_books_until(within[:-1]) is None
    # A year and a day apart they were never together.
    apart = billed((date(2025, 1, 1), "5000"), (date(2026, 1, 1), "5000"))
    assert access_to_books_until(apart) is None
    together = billed((date(2025, 1, 2), "5000"), (date(2026, 1, 1), "5000"))
    assert access_to_books_until(together) == date(2030, 1, 1)


def test_the_last_services_count_and_what_was_taken_back_is_taken_off() -> None:
    twice = billed((date(2024, 1, 1), "10000"), (date(2026, 1, 1), "10000"))
    assert access_to_books_until(twice) == date(2030, 1, 1)
    assert (
        access_to_books_until(billed((date(2024, 1, 1), "10000"), (date(2024, 1, 1), "-1"))) is None
    )
