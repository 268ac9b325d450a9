"""The shipped catalogue decodes and says what was decided."""

from __future__ import annotations

from decimal import Decimal
from importlib.resources import files

import msgspec
import pytest

from ledger.catalogue import Catalogue, shipped
from ledger.domain.plan import Plan
from ledger.domain.quantity import MAX_UNITS, units_of_decimal

BASIC = {
    "conversation_minutes": 1500,
    "api_calls": 10_000,
    "ai_tokens": 1_000_000,
    "feature_uses": 1000,
}


def plan(tier: str) -> Plan:
    [found] = [one for one in shipped().plans if one.tier == tier]
    return found


def limits(tier: str, scope: str) -> dict[str, tuple[Decimal | None, str]]:
    return {
        one.usage_type: (None if one.limit is None else Decimal(one.limit), one.enforcement)
        for one in plan(tier).entitlements
        if one.scope == scope
    }


def times(factor: int, enforcement: str) -> dict[str, tuple[Decimal, str]]:
    return {name: (Decimal(limit * factor), enforcement) for name, limit in BASIC.items()}


def test_there_are_four_usage_types_and_three_plans() -> None:
    assert {one.usage_type for one in shipped().usage_types} == BASIC.keys()
    assert [one.tier for one in shipped().plans] == ["basic", "professional", "enterprise"]


def test_base_fees_are_what_was_decided() -> None:
    fees = {one.tier: one.base_fee for one in shipped().plans}
    assert fees == {"basic": "0.00", "professional": "499.00", "enterprise": "4999.00"}


def test_basic_is_hard_per_user_without_a_pool() -> None:
    assert limits("basic", "user") == times(1, "hard")
    assert limits("basic", "organization") == {}


def test_professional_is_ten_times_basic_and_soft() -> None:
    assert limits("professional", "user") == times(10, "soft")
    assert limits("professional", "organization") == {}


def test_enterprise_is_unlimited_per_user_with_a_soft_pool_of_a_hundred_times() -> None:
    assert {limit for limit, _ in limits("enterprise", "user").values()} == {None}
    assert limits("enterprise", "user").keys() == BASIC.keys()
    assert limits("enterprise", "organization") == times(100, "soft")


@pytest.mark.parametrize("tier", ["basic", "professional", "enterprise"])
def test_every_plan_prices_the_overage_of_every_usage_type(tier: str) -> None:
    prices = {one.usage_type: one for one in plan(tier).prices}
    assert prices.keys() == BASIC.keys()
    bounds = limits(tier, "organization") or limits(tier, "user")
    for usage_type, price in prices.items():
        assert Decimal(price.unit_amount or "0") > 0
        assert Decimal(price.included) == bounds[usage_type][0]


def test_every_limit_is_exact_in_its_usage_types_scale() -> None:
    places = {one.usage_type: one.decimal_places for one in shipped().usage_types}
    for one in shipped().plans:
        for entitlement in one.entitlements:
            if entitlement.limit is not None:
                limit = Decimal(entitlement.limit)
                assert 0 < units_of_decimal(limit, places[entitlement.usage_type]) <= MAX_UNITS


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"1500"', "1500"), ('"1500"', '"NaN"'), ('"1500"', '"1e3"'), ('"1500"', '"-1"'),
        ('"hard"', '"firm"'), ('"trial_days": 0', '"trial_day": 0'), ('"USD"', '"usd"'),
        ('"decimal_places": 2', '"decimal_places": 7'), ('"per_unit"', '"per_use"'),
    ],
)  # fmt: skip
def test_a_mistake_in_the_catalogue_is_refused(before: str, after: str) -> None:
    text = files("ledger").joinpath("catalogue.json").read_text(encoding="utf-8")
    assert before in text
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text.replace(before, after, 1), type=Catalogue)
