"""From billable quantity to lines: one table of cases for each model, and what holds for all."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.domain.line import Line
from ledger.domain.money import is_whole
from ledger.domain.plan import Price
from ledger.domain.rating import rate

PER_UNIT: dict[str, Any] = {"model": "per_unit", "unit_amount": "0.05"}
GRADUATED: dict[str, Any] = {
    "model": "graduated",
    "tiers": [
        {"up_to": "100", "unit_amount": "0.10"},
        {"up_to": "200", "unit_amount": "0.05", "flat_amount": "3"},
        {"up_to": None, "unit_amount": "0.01"},
    ],
}
VOLUME = GRADUATED | {"model": "volume"}
PACKAGE: dict[str, Any] = {"model": "package", "unit_amount": "2.50", "package_size": "100"}
FLAT: dict[str, Any] = {"model": "flat", "unit_amount": "19.99"}
BOUNDED = PER_UNIT | {"minimum_amount": "10.00", "maximum_amount": "20.00"}


def lines(price: dict[str, Any], quantity: str, currency: str = "USD") -> list[Line]:
    typed = msgspec.convert({"usage_type": "calls"} | price, Price)
    return rate(typed, Decimal(quantity), currency)


def total(found: list[Line]) -> Decimal:
    return sum((one.amount for one in found), Decimal(0))


@pytest.mark.parametrize(
    ("price", "quantity", "expected"),
    [
        (PER_UNIT, "0", "0"),
        (PER_UNIT, "1", "0.05"),
        (PER_UNIT, "1620.5", "81.03"),  # 81.025
        (PER_UNIT | {"included": "1500"}, "1499.99", "0"),
        (PER_UNIT | {"included": "1500"}, "1500", "0"),
        (PER_UNIT | {"included": "1500"}, "1500.1", "0.01"),  # 0.005
        (PER_UNIT | {"included": "1500"}, "1500.09", "0"),  # 0.0045
        (PER_UNIT | {"included": "1500"}, "1620.5", "6.03"),  # 6.025
        (PER_UNIT | {"unit_amount": "0.000001"}, "9007199254740991", "9007199254.74"),
        (GRADUATED, "0", "0"),
        (GRADUATED, "99.99", "10.00"),  # 9.999
        (GRADUATED, "100", "10.00"),
        (GRADUATED, "100.01", "13.00"),  # 13.0005: the second tier's flat amount
        (GRADUATED, "101", "13.05"),
        (GRADUATED, "200", "18.00"),
        (GRADUATED, "201", "18.01"),
        (GRADUATED, "1200", "28.00"),
        (GRADUATED | {"included": "100"}, "200", "10.00"),
        (GRADUATED | {"included": "100"}, "201", "13.05"),
        (VOLUME, "0", "0"),
        (VOLUME, "100", "10.00"),
        (VOLUME, "101", "8.05"),
        (VOLUME, "200", "13.00"),
        (VOLUME, "201", "2.01"),
        (VOLUME | {"included": "100"}, "200", "10.00"),
        (PACKAGE, "0", "0"),
        (PACKAGE, "0.01", "2.50"),
        (PACKAGE, "100", "2.50"),
        (PACKAGE, "100.01", "5.00"),
        (PACKAGE, "101", "5.00"),
        (PACKAGE | {"included": "50"}, "150", "2.50"),
        (PACKAGE | {"included": "50"}, "151", "5.00"),
        (FLAT, "0", "0"),
        (FLAT, "0.01", "19.99"),
        (FLAT, "5000", "19.99"),
        (FLAT | {"included": "10"}, "10", "0"),
        (FLAT | {"included": "10"}, "11", "19.99"),
        (BOUNDED, "0", "10.00"),
        (BOUNDED, "199", "10.00"),
        (BOUNDED, "200", "10.00"),
        (BOUNDED, "201", "10.05"),
        (BOUNDED, "400", "20.00"),
        (BOUNDED, "401", "20.00"),
        (BOUNDED | {"minimum_amount": "20.00"}, "300", "20.00"),
    ],
)  # fmt: skip
def test_a_quantity_costs(price: dict[str, Any], quantity: str, expected: str) -> None:
    assert total(lines(price, quantity)) == Decimal(expected)


@pytest.mark.parametrize(
    ("currency", "expected"), [("USD", "0.01"), ("JPY", "0"), ("KWD", "0.005")]
)
def test_an_amount_is_rounded_to_its_currency(currency: str, expected: str) -> None:
    assert total(lines(PER_UNIT, "0.1", currency)) == Decimal(expected)


def test_tiers_are_summed_before_they_are_rounded() -> None:
    tiers = [{"up_to": "1", "unit_amount": "0.004"}, {"up_to": None, "unit_amount": "0.004"}]
    assert total(lines({"model": "graduated", "tiers": tiers}, "2")) == Decimal("0.01")


@pytest.mark.parametrize(
    ("price", "quantity", "expected"),
    [
        (BOUNDED, "0", [("minimum", None, "10.00")]),
        (BOUNDED, "100", [("usage", "100", "5.00"), ("minimum", None, "5.00")]),
        (BOUNDED, "200", [("usage", "200", "10.00")]),
        (BOUNDED, "500", [("usage", "500", "25.00"), ("maximum", None, "-5.00")]),
        (PER_UNIT | {"included": "10"}, "10", [("usage", "10", "0")]),
        (PER_UNIT, "0", []),
    ],
)
def test_a_minimum_and_a_maximum_are_lines_of_their_own(
    price: dict[str, Any], quantity: str, expected: list[tuple[str, str | None, str]]
) -> None:
    assert [(one.kind, one.quantity, one.amount) for one in lines(price, quantity)] == [
        (kind, None if many is None else Decimal(many), Decimal(amount))
        for kind, many, amount in expected
    ]


@pytest.mark.parametrize(
    ("price", "quantity", "unit_amount", "description"),
    [
        (PER_UNIT, "120", "0.05", "calls: 120; 120 x 0.05"),
        (PER_UNIT | {"included": "100"}, "120", "0.05", "calls: 120, 100 included; 20 x 0.05"),
        (PER_UNIT | {"included": "100"}, "99.50", None, "calls: 99.5, 99.5 included"),
        (GRADUATED, "100", "0.10", "calls: 100; 100 x 0.1"),
        (GRADUATED, "150", None, "calls: 150; 100 x 0.1 + 50 x 0.05 + flat 3"),
        (VOLUME, "300", "0.01", "calls: 300; 300 x 0.01"),
        (VOLUME, "150", None, "calls: 150; 150 x 0.05 + flat 3"),
        (PACKAGE, "101", None, "calls: 101; 2 packages of 100 x 2.5"),
        (FLAT, "7", None, "calls: 7; flat 19.99"),
    ],
)
def test_a_line_says_how_its_amount_came_about(
    price: dict[str, Any], quantity: str, unit_amount: str | None, description: str
) -> None:
    [line] = lines(price, quantity)
    assert line.unit_amount == (None if unit_amount is None else Decimal(unit_amount))
    assert line.description == description


def test_less_than_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        lines(PER_UNIT, "-1")


prices = st.sampled_from([PER_UNIT, GRADUATED, VOLUME, PACKAGE, FLAT, BOUNDED])
quantities = st.decimals(0, 10**17, places=6)
included = st.sampled_from(["0", "1", "150.5"])


@given(prices, quantities, included, st.sampled_from(["USD", "JPY", "KWD"]))
def test_lines_are_payable_and_their_quantities_sum_to_what_was_used(
    price: dict[str, Any], quantity: Decimal, free: str, currency: str
) -> None:
    found = lines(price | {"included": free}, str(quantity), currency)
    assert sum(one.quantity or 0 for one in found) == quantity
    assert all(is_whole(one.amount, currency) for one in found)
    assert all(one.usage_type == "calls" for one in found)


@given(prices.filter(lambda one: one is not VOLUME), quantities, quantities)
def test_more_never_costs_less_except_by_volume(
    price: dict[str, Any], one: Decimal, other: Decimal
) -> None:
    less, more = sorted([one, other])
    assert total(lines(price, str(less))) <= total(lines(price, str(more)))


@given(quantities, st.decimals("0.01", "5", places=2))
def test_graduated_tiers_of_one_price_cost_what_one_price_per_unit_does(
    quantity: Decimal, unit_amount: Decimal
) -> None:
    text = str(unit_amount)
    tiers = [{"up_to": bound, "unit_amount": text} for bound in ("10", "2000", None)]
    assert total(lines({"model": "graduated", "tiers": tiers}, str(quantity))) == total(
        lines({"model": "per_unit", "unit_amount": text}, str(quantity))
    )
