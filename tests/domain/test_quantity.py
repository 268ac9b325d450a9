"""Exact quantities, against an oracle that knows only fractions."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledger.domain.quantity import (
    MAX_UNITS,
    QuantityError,
    number_of,
    quantity_of,
    units_of,
    units_of_decimal,
)

LONGEST_TOKEN = 64
LONGEST_EXPONENT = 4
PLACES = range(7)

places = st.integers(0, 6)
digits = st.text("0123456789", min_size=1, max_size=20)
whole = st.one_of(st.just("0"), digits.map(lambda text: text.lstrip("0") or "0"))
exponents = st.builds(
    "{}{}{}".format,
    st.sampled_from("eE"),
    st.sampled_from(["", "+", "-"]),
    st.one_of(st.integers(0, 25).map(str), st.integers(0, 9999).map(str), st.just("007")),
)
numbers = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "", "", "-"]),
    whole,
    st.one_of(st.just(""), digits.map(".{}".format)),
    st.one_of(st.just(""), exponents),
).map(str.encode)


def oracle(token: bytes, decimal_places: int) -> int | None:
    """Units of a JSON number, None when it cannot be recorded."""
    mantissa, _, exponent = token.decode().lower().partition("e")
    power = int(exponent or "0")
    if abs(power) > 200:  # further than 64 digits can make good, unless the number is 0
        return None
    units = Fraction(mantissa) * Fraction(10) ** (power + decimal_places)
    if units.denominator != 1 or not 1 <= units <= MAX_UNITS:
        return None
    return int(units)


@given(numbers, places)
@example(b"10.0", 0)
@example(b"1e0", 0)
@example(b"0.5e1", 0)
@example(b"9007199254740991", 0)
@example(b"9007199254740992", 0)
@example(b"999999999999", 6)
@example(b"90071992547.40991", 5)
@example(b"123456789012345678901234567890e-30", 6)
def test_units_are_what_exact_arithmetic_says(token: bytes, decimal_places: int) -> None:
    expected = oracle(token, decimal_places) if len(token) <= LONGEST_TOKEN else None
    try:
        units: int | None = units_of(token, decimal_places)
    except QuantityError:
        units = None
    assert units == expected


@pytest.mark.parametrize("decimal_places", PLACES)
def test_a_plain_whole_number_is_held_to_the_largest_count(decimal_places: int) -> None:
    largest, _ = divmod(MAX_UNITS, 10**decimal_places)
    assert units_of(b"%d" % largest, decimal_places) == largest * 10**decimal_places
    for token in (b"%d" % (largest + 1), b"9" * 12 if decimal_places > 3 else b"9" * 16):
        with pytest.raises(QuantityError, match="too large"):
            units_of(token, decimal_places)


@pytest.mark.parametrize("decimal_places", PLACES)
def test_the_smallest_and_the_largest_count_are_accepted_and_the_next_are_not(
    decimal_places: int,
) -> None:
    assert units_of(b"1e-%d" % decimal_places, decimal_places) == 1
    assert units_of(number_of(MAX_UNITS, decimal_places).encode(), decimal_places) == MAX_UNITS
    with pytest.raises(QuantityError, match="too large"):
        units_of(number_of(MAX_UNITS + 1, decimal_places).encode(), decimal_places)
    with pytest.raises(QuantityError, match=r"decimal places|whole number"):
        units_of(b"1e-%d" % (decimal_places + 1), decimal_places)


@pytest.mark.parametrize(
    "token",
    [b"0", b"-0", b"0.0", b"0e5", b"0.00E-3", b"-1", b"-0.5", b"-1e3", b"0e9999"],
)
@pytest.mark.parametrize("decimal_places", [0, 2])
def test_nothing_and_less_than_nothing_are_refused(token: bytes, decimal_places: int) -> None:
    with pytest.raises(QuantityError, match="greater than 0"):
        units_of(token, decimal_places)


@pytest.mark.parametrize(
    "token",
    [
        b"", b" ", b" 1", b"1 ", b"1\n", b"01", b"00", b"-01", b"1.", b".5", b"+1", b"1e", b"1e+",
        b"1e1.5", b"--1", b"1_000", b"0x10", b"NaN", b"nan", b"Infinity", b"-Infinity", b"inf",
        b'"1"', b"true", b"null", b"[1]", b"{}", b"1,5", b"1e5e5", b"\xd9\xa1", b"\xff", b"\x00",
    ],
)  # fmt: skip
def test_what_is_no_json_number_is_refused(token: bytes) -> None:
    with pytest.raises(QuantityError):
        units_of(token, 2)


@given(st.binary(max_size=80), places)
def test_whatever_the_bytes_are_the_answer_is_units_or_a_quantity_error(
    token: bytes, decimal_places: int
) -> None:
    try:
        units = units_of(token, decimal_places)
    except QuantityError as error:
        assert token == b"" or token.decode("latin-1") not in str(error) or len(token) < 3
    else:
        assert 1 <= units <= MAX_UNITS
        json.loads(token)


@pytest.mark.parametrize(
    "token",
    [
        b"1e9999999", b"1E+999999999999999999999", b"1e-9999999", b"9" * 100_000,
        b"1" + b"0" * 1_000_000, b"0." + b"0" * 1_000_000 + b"1", b"1e9999", b"1e-9999",
        b"9" * 60 + b"e9999", b"0" * 64, b"-" + b"9" * 1_000_000,
    ],
)  # fmt: skip
def test_enormous_numbers_are_refused_without_being_computed(
    token: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest: list[int] = []

    def counting_int(text: bytes | str) -> int:
        longest.append(len(text))
        return int(text)

    monkeypatch.setattr("ledger.domain.quantity.int", counting_int, raising=False)
    with pytest.raises(QuantityError):
        units_of(token, 6)
    assert all(length <= LONGEST_EXPONENT + 1 for length in longest)


def test_limits_of_length_are_refused_even_when_the_number_would_be_exact() -> None:
    assert units_of(b"1." + b"0" * (LONGEST_TOKEN - 2), 0) == 1
    with pytest.raises(QuantityError, match="too many digits"):
        units_of(b"1." + b"0" * (LONGEST_TOKEN - 1), 0)
    assert units_of(b"1e0001", 0) == 10
    with pytest.raises(QuantityError, match="too many digits"):
        units_of(b"1e00001", 0)


@given(st.integers(1, MAX_UNITS), places)
def test_units_come_back_from_the_number_they_are_shown_as(units: int, decimal_places: int) -> None:
    text = number_of(units, decimal_places)
    assert units_of(text.encode(), decimal_places) == units
    assert "." not in text or not text.endswith(("0", "."))
    assert "e" not in text.lower()


@given(st.integers(-MAX_UNITS, MAX_UNITS), places)
def test_the_decimal_of_units_is_exact_whatever_the_sign(units: int, decimal_places: int) -> None:
    decimal = quantity_of(units, decimal_places)
    assert Fraction(decimal) == Fraction(units, 10**decimal_places)
    assert units_of_decimal(decimal, decimal_places) == units
    assert json.loads(number_of(units, decimal_places), parse_float=Decimal) == decimal


@pytest.mark.parametrize(
    ("text", "decimal_places", "shown"),
    [
        (144050, 2, "1440.5"), (5, 2, "0.05"), (-5, 2, "-0.05"), (0, 2, "0"), (100, 2, "1"),
        (-100, 2, "-1"), (7, 0, "7"), (1, 6, "0.000001"),
    ],
)  # fmt: skip
def test_a_number_is_shown_without_trailing_zeros(
    text: int, decimal_places: int, shown: str
) -> None:
    assert number_of(text, decimal_places) == shown


def test_a_decimal_finer_than_the_scale_is_refused() -> None:
    with pytest.raises(QuantityError, match="more than 2 decimal places"):
        units_of_decimal(Decimal("0.001"), 2)
    assert units_of_decimal(Decimal("1.500"), 1) == 15
