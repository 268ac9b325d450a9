"""Measured quantity becomes billable quantity, group by group."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.plan import Policy, UnitPolicy
from ledger.domain.unit_policy import GROUPING, Measured, billable

DAY = date(2026, 3, 10)
CMS = UnitPolicy(policy="cms_8_minute")
SIZES: dict[Policy, str | None] = {
    "exact": None, "ceil": "6", "cms_8_minute": None, "cpt_midpoint": "30", "threshold": "20",
}  # fmt: skip


def services(*quantities: str, user: str = "u", day: date = DAY) -> list[Measured]:
    return [Measured(user, day, f"s{i}", Decimal(one)) for i, one in enumerate(quantities)]


def units(policy: UnitPolicy | None, measured: list[Measured]) -> list[Decimal]:
    return [one.quantity for one in billable(policy, measured)]


def numbers(*texts: str) -> list[Decimal]:
    return [Decimal(one) for one in texts]


# Claims Processing Manual, chapter 5, section 20.2: the minutes at which 0, 1, 2, ... units begin
CMS_TABLE = [0, 8, 23, 38, 53, 68, 83, 98, 113, 128]


@pytest.mark.parametrize("minutes", range(128))
def test_every_minute_of_the_eight_minute_table(minutes: int) -> None:
    expected = sum(1 for begins in CMS_TABLE[1:] if minutes >= begins)
    assert units(CMS, services(str(minutes))) == [expected]


@pytest.mark.parametrize(("minutes", "expected"), [("7.99", 0), ("8.00", 1), ("22.99", 1)])
def test_a_part_of_a_minute_is_not_a_minute_of_the_table(minutes: str, expected: int) -> None:
    assert units(CMS, services(minutes)) == [expected]


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        (["24", "23"], ["2", "1"]), (["20", "20"], ["2", "1"]), (["33", "7"], ["2", "1"]),
        (["7", "33"], ["1", "2"]), (["5", "5", "5"], ["1", "0", "0"]), (["7", "7"], ["1", "0"]),
        (["10", "5", "7"], ["1", "0", "0"]), (["15", "0"], ["1", "0"]), (["3", "4"], ["0", "0"]),
        (["14"] * 7, ["1"] * 7),
    ],
)  # fmt: skip
def test_services_of_a_day_share_the_units_of_its_total(
    minutes: list[str], expected: list[str]
) -> None:
    assert units(CMS, services(*minutes)) == numbers(*expected)


def test_another_day_and_another_user_are_totals_of_their_own() -> None:
    measured = [
        *services("7", "7"),
        *services("8", day=date(2026, 3, 11)),
        *services("7", user="v"),
    ]
    assert units(CMS, measured) == numbers("1", "0", "1", "0")


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [("0.01", 0), ("15", 0), ("15.01", 1), ("16", 1), ("45", 1), ("45.01", 2), ("46", 2),
     ("60", 2)],
)  # fmt: skip
def test_a_unit_is_earned_once_its_midpoint_is_passed(minutes: str, expected: int) -> None:
    policy = UnitPolicy(policy="cpt_midpoint", size="30")
    assert units(policy, services(minutes)) == [expected]


def test_midpoints_are_passed_by_each_record_alone() -> None:
    assert units(UnitPolicy(policy="cpt_midpoint", size="30"), services("10", "10")) == [0, 0]


@pytest.mark.parametrize(
    ("size", "minutes", "expected"),
    [
        (None, "3.01", "4"), (None, "3", "3"), ("6", "0.01", "6"), ("6", "6", "6"),
        ("6", "6.01", "12"), ("0.25", "1.01", "1.25"),
    ],
)  # fmt: skip
def test_a_record_is_rounded_up_to_a_multiple_of_the_size(
    size: str | None, minutes: str, expected: str
) -> None:
    policy = UnitPolicy(policy="ceil", size=size)
    assert units(policy, services(minutes, minutes)) == numbers(expected, expected)


def test_a_threshold_is_reached_by_a_users_calendar_month_and_nothing_is_carried_over() -> None:
    policy = UnitPolicy(policy="threshold", size="20")
    measured = [
        Measured("u", date(2026, 3, 1), "a", Decimal("12")),
        Measured("u", date(2026, 3, 31), "b", Decimal("28")),
        Measured("u", date(2026, 4, 1), "c", Decimal("19.99")),
        Measured("v", date(2026, 3, 1), "d", Decimal("20")),
    ]
    assert units(policy, measured) == numbers("1", "1", "0", "1")


def test_without_a_policy_quantity_is_billed_as_measured() -> None:
    measured = services("0.01", "7.99")
    assert billable(None, measured) == billable(UnitPolicy(policy="exact"), measured) == measured


def test_a_correction_belongs_to_the_record_it_corrects() -> None:
    measured = [*services("30"), Measured("u", DAY, "s0", Decimal("-8"))]
    assert units(CMS, measured) == [1]
    with pytest.raises(ValueError, match="corrections"):
        billable(CMS, [*measured, Measured("u", DAY, "s0", Decimal("-23"))])


minutes = st.decimals("0", "300", places=2)
records = st.builds(
    Measured,
    user=st.sampled_from(["u", "v"]),
    day=st.dates(date(2026, 2, 26), date(2026, 3, 3)),
    record=st.sampled_from(["a", "b", "c", "d"]),
    quantity=minutes,
)
policies = st.sampled_from([UnitPolicy(policy=one, size=size) for one, size in SIZES.items()])


@given(policies, st.lists(records, max_size=30))
def test_no_record_has_more_than_one_size_above_what_it_measured_or_a_whole_size_less(
    policy: UnitPolicy, measured: list[Measured]
) -> None:
    totals: dict[tuple[str, date, str], Decimal] = {}
    for one in measured:
        key = (one.user, one.day, one.record)
        totals[key] = totals.get(key, Decimal(0)) + one.quantity
    size = Decimal("15" if policy.policy == "cms_8_minute" else policy.size or "1")
    scale = 1 if policy.policy in ("exact", "ceil") else size
    for billed in billable(policy, measured):
        quantity = totals.pop((billed.user, billed.day, billed.record))
        assert -size < billed.quantity * scale - quantity < size
    assert not totals


def test_every_policy_has_a_grouping_and_a_case_here() -> None:
    assert set(GROUPING) == set(get_args(Policy)) == set(SIZES)
