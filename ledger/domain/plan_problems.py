"""What is wrong with a plan beyond its types: each problem names its field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise

from ledger.domain.money import is_whole, minor_places
from ledger.domain.plan import Entitlement, Model, Plan, Policy, Price, PriceTier
from ledger.domain.quantity import MAX_UNITS, QuantityError, units_of_decimal

_NEEDS: dict[Model, frozenset[str]] = {
    "per_unit": frozenset({"unit_amount"}),
    "graduated": frozenset({"tiers"}),
    "volume": frozenset({"tiers"}),
    "package": frozenset({"unit_amount", "package_size"}),
    "flat": frozenset({"unit_amount"}),
}
_MODEL_FIELDS = ("unit_amount", "package_size", "tiers")
# Policies that count units: what they make is whole, whatever the usage type's decimal places.
_COUNTING: frozenset[Policy] = frozenset({"cms_8_minute", "cpt_midpoint", "threshold"})
_NEEDS_SIZE: frozenset[Policy] = frozenset({"cpt_midpoint", "threshold"})
_HAS_SIZE = _NEEDS_SIZE | {"ceil"}


class PlanError(ValueError):
    """The plan cannot be sold like this; `problems` has one sentence a field."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def check(plan: Plan, usage_types: Mapping[str, int]) -> None:
    """Raises `PlanError` with every problem of the plan."""
    found = problems(plan, usage_types)
    if found:
        raise PlanError(found)


def problems(plan: Plan, usage_types: Mapping[str, int]) -> list[str]:
    """Every problem of a plan as ``field: what is wrong``; `usage_types` are the known ones with
    their decimal places."""
    return [
        *_payable("base_fee", plan.base_fee, plan.currency),
        *_entitlements(plan.entitlements, usage_types),
        *_prices(plan, usage_types),
    ]


def _entitlements(given: Sequence[Entitlement], usage_types: Mapping[str, int]) -> Iterator[str]:
    seen = set()
    for index, one in enumerate(given):
        field = f"entitlements[{index}]"
        if (one.usage_type, one.scope) in seen:
            yield f"{field}: {one.usage_type} has an entitlement of scope {one.scope} already"
        seen.add((one.usage_type, one.scope))
        places = usage_types.get(one.usage_type)
        if places is None:
            yield f"{field}.usage_type: there is no {one.usage_type}"
            continue
        yield from _quantity(f"{field}.limit", one.limit, places)
        if one.rollover is not None:
            yield from _quantity(f"{field}.rollover.max", one.rollover.max, places)
            if one.limit is None:
                yield f"{field}.rollover: nothing is left over of what is unlimited"


def _prices(plan: Plan, usage_types: Mapping[str, int]) -> Iterator[str]:
    seen = set()
    for index, price in enumerate(plan.prices):
        field = f"prices[{index}]"
        if price.usage_type in seen:
            yield f"{field}: {price.usage_type} has a price already"
        seen.add(price.usage_type)
        places = usage_types.get(price.usage_type)
        if places is None:
            yield f"{field}.usage_type: there is no {price.usage_type}"
            continue
        yield from _units(field, price, places)
        yield from _model(field, price, _billable_places(price, places))
        yield from _bounds(field, price, plan.currency)


def _units(field: str, price: Price, places: int) -> Iterator[str]:
    if price.units is None:
        return
    policy, size = price.units.policy, price.units.size
    if size is None:
        if policy in _NEEDS_SIZE:
            yield f"{field}.units.size: {policy} needs one"
    elif policy not in _HAS_SIZE:
        yield f"{field}.units.size: {policy} has none"
    else:
        yield from _quantity(f"{field}.units.size", size, places, positive=True)


def _billable_places(price: Price, places: int) -> int:
    return 0 if price.units is not None and price.units.policy in _COUNTING else places


def _model(field: str, price: Price, places: int) -> Iterator[str]:
    for name in _MODEL_FIELDS:
        given, needed = getattr(price, name) is not None, name in _NEEDS[price.model]
        if needed and not given:
            yield f"{field}.{name}: {price.model} needs one"
        elif given and not needed:
            yield f"{field}.{name}: {price.model} has none"
    yield from _quantity(f"{field}.included", price.included, places)
    yield from _quantity(f"{field}.package_size", price.package_size, places, positive=True)
    if price.tiers is not None:
        yield from _tiers(f"{field}.tiers", price.tiers, places)


def _tiers(field: str, tiers: Sequence[PriceTier], places: int) -> Iterator[str]:
    if not tiers:
        yield f"{field}: at least one is needed"
        return
    for index, tier in enumerate(tiers):
        if tier.unit_amount is None and tier.flat_amount is None:
            yield f"{field}[{index}]: needs a unit_amount, a flat_amount or both"
        if tier.up_to is None and index < len(tiers) - 1:
            yield f"{field}[{index}].up_to: only the last tier is without end"
        yield from _quantity(f"{field}[{index}].up_to", tier.up_to, places, positive=True)
    if tiers[-1].up_to is not None:
        yield f"{field}[{len(tiers) - 1}].up_to: the last tier must be without end (null)"
    for index, (before, tier) in enumerate(pairwise(tiers), start=1):
        if before.up_to and tier.up_to and Decimal(tier.up_to) <= Decimal(before.up_to):
            yield f"{field}[{index}].up_to: must be more than the tier before"


def _bounds(field: str, price: Price, currency: str) -> Iterator[str]:
    low, high = price.minimum_amount, price.maximum_amount
    yield from _payable(f"{field}.minimum_amount", low, currency)
    yield from _payable(f"{field}.maximum_amount", high, currency)
    if low is not None and high is not None and Decimal(low) > Decimal(high):
        yield f"{field}.minimum_amount: is more than maximum_amount"


def _payable(field: str, amount: str | None, currency: str) -> Iterator[str]:
    """Amounts that become lines as they are; a unit_amount may be finer."""
    if amount is not None and not is_whole(Decimal(amount), currency):
        yield f"{field}: {currency} has {minor_places(currency)} decimal places"


def _quantity(
    field: str, text: str | None, places: int, *, positive: bool = False
) -> Iterator[str]:
    if text is None:
        return
    try:
        units = units_of_decimal(Decimal(text), places)
    except QuantityError:
        yield f"{field}: has more than {places} decimal places"
        return
    if units > MAX_UNITS:
        yield f"{field}: is too large"
    if positive and units == 0:
        yield f"{field}: must be more than 0"
