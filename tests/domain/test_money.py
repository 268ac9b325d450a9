"""Amounts are exact and rounded in one place."""

from __future__ import annotations

from decimal import Decimal, Inexact

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.money import (
    amount_text,
    exact,
    is_whole,
    largest_remainder,
    minor_places,
    rounded,
    split,
)

weights = st.lists(st.integers(0, 10**15), min_size=1, max_size=12).filter(any)


@pytest.mark.parametrize(
    ("currency", "places"), [("USD", 2), ("EUR", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4)]
)
def test_a_currency_has_its_own_minor_unit(currency: str, places: int) -> None:
    assert minor_places(currency) == places


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [
        ("0.005", "USD", "0.01"), ("0.004999", "USD", "0.00"), ("0.015", "USD", "0.02"),
        ("0.025", "USD", "0.03"), ("-0.005", "USD", "-0.01"), ("1.0049999999999", "USD", "1.00"),
        ("0.5", "JPY", "1"), ("2.5", "JPY", "3"), ("0.0005", "KWD", "0.001"),
        ("499", "USD", "499.00"), ("123456789012345678901234567890.125", "USD",
                                   "123456789012345678901234567890.13"),
    ],
)  # fmt: skip
def test_the_half_goes_up_at_the_minor_unit(amount: str, currency: str, expected: str) -> None:
    assert amount_text(rounded(Decimal(amount), currency), currency) == expected


def test_a_text_never_rounds() -> None:
    assert amount_text(Decimal("499"), "USD") == "499.00"
    with pytest.raises(Inexact):
        amount_text(Decimal("0.001"), "USD")


def test_no_digit_is_lost_without_a_word() -> None:
    wide = Decimal("9" * 42)
    with exact():
        assert wide * wide == Decimal(int("9" * 42) ** 2)
        with pytest.raises(Inexact):
            Decimal(1) / Decimal(3)


@pytest.mark.parametrize(
    ("amount", "shares", "currency", "expected"),
    [
        ("100.00", [1, 1, 1], "USD", ["33.34", "33.33", "33.33"]),
        ("0.02", [1, 1, 1], "USD", ["0.01", "0.01", "0"]),
        ("-100.00", [1, 1, 1], "USD", ["-33.34", "-33.33", "-33.33"]),
        ("100", [1, 2], "JPY", ["33", "67"]),
        ("1.000", [2, 0, 1], "KWD", ["0.667", "0", "0.333"]),
        ("0.01", [1, 99], "USD", ["0", "0.01"]),
    ],
)
def test_what_is_left_over_goes_to_the_largest_remainders(
    amount: str, shares: list[int], currency: str, expected: list[str]
) -> None:
    assert split(Decimal(amount), shares, currency) == [Decimal(one) for one in expected]


@given(st.integers(-(10**18), 10**18), weights, st.sampled_from(["USD", "JPY", "KWD"]))
def test_shares_sum_to_the_amount_and_are_within_a_minor_unit_of_exact(
    minor: int, given_weights: list[int], currency: str
) -> None:
    unit = Decimal(1).scaleb(-minor_places(currency))
    amount = minor * unit
    shares = split(amount, given_weights, currency)
    assert sum(shares) == amount
    whole = sum(given_weights)
    for share, weight in zip(shares, given_weights, strict=True):
        assert is_whole(share, currency)
        assert abs(int(share / unit) * whole - minor * weight) < whole
        assert weight or not share


@pytest.mark.parametrize("bad", [[], [0, 0], [3, -1]])
def test_shares_of_nothing_are_refused(bad: list[int]) -> None:
    with pytest.raises(ValueError, match="weights"):
        largest_remainder(10, bad)


def test_a_part_of_a_minor_unit_cannot_be_shared() -> None:
    with pytest.raises(Inexact):
        split(Decimal("0.001"), [1, 1], "USD")
