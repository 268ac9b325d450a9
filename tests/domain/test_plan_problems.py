"""A plan is checked beyond its types, and each problem names its field."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.catalogue import shipped
from ledger.domain.plan_problems import PlanError, check, problems
from tests.domain.plans import make_plan, price

TYPES = {"calls": 0, "minutes": 2}
TIERS = [{"up_to": "10", "unit_amount": "1"}, {"up_to": None, "flat_amount": "1"}]
GRADUATED = {"model": "graduated", "unit_amount": None, "tiers": TIERS}


def entitlement(**changed: object) -> dict[str, object]:
    whole = {"usage_type": "minutes", "scope": "user", "limit": "10.25", "enforcement": "hard"}
    return whole | changed


def found(**changed: Any) -> list[str]:
    return problems(make_plan(**changed), TYPES)


def of_price(**changed: Any) -> list[str]:
    return found(prices=[price(**changed)])


def of_tiers(*tiers: dict[str, object]) -> list[str]:
    return of_price(model="volume", unit_amount=None, tiers=list(tiers))


def test_the_shipped_plans_have_no_problem() -> None:
    catalogue = shipped()
    types = {one.usage_type: one.decimal_places for one in catalogue.usage_types}
    for plan in catalogue.plans:
        check(plan, types)


@pytest.mark.parametrize(
    "changed",
    [
        {}, GRADUATED, GRADUATED | {"model": "volume"}, {"model": "flat"},
        {"model": "package", "package_size": "100"},
        {"unit_amount": "0.000001", "included": "100"},
        {"minimum_amount": "5.00", "maximum_amount": "5.00"},
        {"usage_type": "minutes", "included": "0.25"},
        {"usage_type": "minutes", "units": {"policy": "ceil"}},
        {"usage_type": "minutes", "units": {"policy": "ceil", "size": "0.25"}},
        {"usage_type": "minutes", "units": {"policy": "cms_8_minute"}},
        {"usage_type": "minutes", "units": {"policy": "threshold", "size": "20"}},
    ],
)  # fmt: skip
def test_a_price_that_can_be_charged_has_no_problem(changed: dict[str, Any]) -> None:
    assert of_price(**changed) == []


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"usage_type": "visits"}, "usage_type"),
        ({"unit_amount": None}, "unit_amount"),
        ({"package_size": "10"}, "package_size"),
        ({"tiers": TIERS}, "tiers"),
        ({"model": "package"}, "package_size"),
        ({"model": "package", "package_size": "0"}, "package_size"),
        ({"model": "package", "package_size": "0.5"}, "package_size"),
        ({"model": "flat", "unit_amount": None}, "unit_amount"),
        ({"model": "graduated", "unit_amount": None}, "tiers"),
        (GRADUATED | {"unit_amount": "1"}, "unit_amount"),
        (GRADUATED | {"tiers": []}, "tiers"),
        ({"included": "0.5"}, "included"),
        ({"included": "999999999999.000000", "usage_type": "minutes",
          "units": {"policy": "ceil", "size": "0"}}, "units.size"),
        ({"minimum_amount": "5.01", "maximum_amount": "5.00"}, "minimum_amount"),
        ({"minimum_amount": "5.001"}, "minimum_amount"),
        ({"maximum_amount": "5.001"}, "maximum_amount"),
        ({"units": {"policy": "threshold"}}, "units.size"),
        ({"units": {"policy": "cpt_midpoint"}}, "units.size"),
        ({"units": {"policy": "cpt_midpoint", "size": "0"}}, "units.size"),
        ({"units": {"policy": "ceil", "size": "0.5"}}, "units.size"),
        ({"units": {"policy": "exact", "size": "1"}}, "units.size"),
        ({"units": {"policy": "cms_8_minute", "size": "15"}}, "units.size"),
        ({"usage_type": "minutes", "included": "0.5", "units": {"policy": "cms_8_minute"}},
         "included"),
    ],
)  # fmt: skip
def test_a_price_that_cannot_be_charged_is_named(changed: dict[str, Any], field: str) -> None:
    assert [one.partition(":")[0] for one in of_price(**changed)] == [f"prices[0].{field}"]


@pytest.mark.parametrize(
    ("tiers", "field"),
    [
        ([{"up_to": "10", "unit_amount": "1"}], "[0].up_to"),
        ([{"up_to": None, "unit_amount": "1"}, *TIERS], "[0].up_to"),
        ([TIERS[0], TIERS[0], TIERS[1]], "[1].up_to"),
        ([{"up_to": "11", "unit_amount": "1"}, *TIERS], "[1].up_to"),
        ([{"up_to": "0", "unit_amount": "1"}, TIERS[1]], "[0].up_to"),
        ([{"up_to": "0.5", "unit_amount": "1"}, TIERS[1]], "[0].up_to"),
        ([{"up_to": "10"}, TIERS[1]], "[0]"),
    ],
)
def test_tiers_ascend_and_only_the_last_is_without_end(
    tiers: list[dict[str, object]], field: str
) -> None:
    assert [one.partition(":")[0] for one in of_tiers(*tiers)] == [f"prices[0].tiers{field}"]


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"usage_type": "visits"}, ".usage_type"),
        ({"limit": "0.001"}, ".limit"),
        ({"limit": "999999999999", "usage_type": "minutes"}, None),
        ({"rollover": {"max": "0.001"}}, ".rollover.max"),
        ({"rollover": {"max": "5"}, "limit": None}, ".rollover"),
    ],
)
def test_an_entitlement_is_checked_against_its_usage_type(
    changed: dict[str, object], field: str | None
) -> None:
    expected = [] if field is None else [f"entitlements[0]{field}"]
    given = [entitlement(**changed)]
    assert [one.partition(":")[0] for one in found(entitlements=given)] == expected


def test_a_limit_that_redis_cannot_count_to_is_too_large() -> None:
    types = {"minutes": 6}
    plan = make_plan(entitlements=[entitlement(limit="9007199255")])
    assert problems(plan, types) == ["entitlements[0].limit: is too large"]


def test_what_is_there_twice_is_named() -> None:
    twice = [entitlement(), entitlement(scope="organization"), entitlement(limit=None)]
    assert found(entitlements=twice, prices=[price(), price("minutes"), price()]) == [
        "entitlements[2]: minutes has an entitlement of scope user already",
        "prices[2]: calls has a price already",
    ]


@pytest.mark.parametrize(
    ("currency", "fee", "fits"),
    [("USD", "1.005", False), ("JPY", "1.5", False), ("JPY", "1.00", True), ("KWD", "1.005", True)],
)
def test_a_base_fee_is_in_whole_minor_units(currency: str, fee: str, fits: bool) -> None:
    assert (found(currency=currency, base_fee=fee) == []) is fits


def test_every_problem_is_told_at_once() -> None:
    plan = make_plan(base_fee="0.001", prices=[price("visits"), price(unit_amount=None)])
    with pytest.raises(PlanError) as refused:
        check(plan, TYPES)
    assert [one.partition(":")[0] for one in refused.value.problems] == [
        "base_fee", "prices[0].usage_type", "prices[1].unit_amount",
    ]  # fmt: skip
