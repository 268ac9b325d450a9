"""From billable quantity to lines, one usage type at a time.

Steps, in this order: what is included is free; the model prices what is beyond it, exactly; the
amount is rounded once; a maximum or a minimum adds a line of its own, so that the lines sum to
what is charged and each says why.

| model | what is beyond the included costs |
|---|---|
| `per_unit` | `unit_amount` each |
| `graduated` | each unit what its own tier says, and each tier reached its flat amount |
| `volume` | every unit what the tier of the last one says, and that tier's flat amount |
| `package` | `unit_amount` for every `package_size` begun |
| `flat` | `unit_amount` once, however much it is |

Without usage beyond the included nothing is charged but a minimum. A tier's `up_to` belongs to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import msgspec

from ledger.domain.line import Line
from ledger.domain.money import amount_text, exact, rounded
from ledger.domain.plan import Price, PriceTier

_NOTHING = Decimal(0)
_ONE = Decimal(1)


class Step(msgspec.Struct, frozen=True):
    """`times` of something at `amount` each; `of` says of what, empty for units."""

    times: Decimal
    amount: Decimal
    of: str = ""

    def __str__(self) -> str:
        if self.of == "flat":
            return f"flat {plain(self.amount)}"
        return f"{plain(self.times)}{self.of} x {plain(self.amount)}"


def rate(price: Price, quantity: Decimal, currency: str) -> list[Line]:
    """Lines of a billable quantity (>= 0) under a price that has no problems
    (`ledger.domain.plan_problems`); empty when nothing was used and no minimum is due."""
    if quantity < 0:
        raise ValueError("quantity must not be negative")
    with exact():
        lines = [_usage(price, quantity, currency)] if quantity else []
        amount = sum((one.amount for one in lines), _NOTHING)
        return lines + list(_bounds(price, amount, currency))


def _usage(price: Price, quantity: Decimal, currency: str) -> Line:
    included = min(Decimal(price.included), quantity)
    steps = list(_steps(price, quantity - included))
    one_price = len(steps) == 1 and not steps[0].of
    return Line(
        kind="usage",
        usage_type=price.usage_type,
        description=_explained(price.usage_type, quantity, included, steps),
        quantity=quantity,
        unit_amount=steps[0].amount if one_price else None,
        amount=rounded(sum((one.times * one.amount for one in steps), _NOTHING), currency),
    )


def _steps(price: Price, quantity: Decimal) -> Iterator[Step]:
    """How the model arrives at its amount; none for a quantity of 0."""
    if not quantity:
        return
    match price.model:
        case "per_unit":
            yield Step(quantity, _amount(price.unit_amount))
        case "graduated":
            yield from _graduated(price.tiers or (), quantity)
        case "volume":
            yield from _volume(price.tiers or (), quantity)
        case "package":
            size = Decimal(price.package_size or "1")
            packages = quantity // size + bool(quantity % size)
            yield Step(packages, _amount(price.unit_amount), f" packages of {plain(size)}")
        case "flat":
            yield Step(_ONE, _amount(price.unit_amount), "flat")


def _graduated(tiers: tuple[PriceTier, ...], quantity: Decimal) -> Iterator[Step]:
    below = _NOTHING
    for tier in tiers:
        upper = quantity if tier.up_to is None else min(Decimal(tier.up_to), quantity)
        yield from _tier(tier, upper - below)
        below = upper
        if below == quantity:
            return


def _volume(tiers: tuple[PriceTier, ...], quantity: Decimal) -> Iterator[Step]:
    for tier in tiers:
        if tier.up_to is None or quantity <= Decimal(tier.up_to):
            yield from _tier(tier, quantity)
            return


def _tier(tier: PriceTier, quantity: Decimal) -> Iterator[Step]:
    if tier.unit_amount is not None:
        yield Step(quantity, Decimal(tier.unit_amount))
    if tier.flat_amount is not None:
        yield Step(_ONE, Decimal(tier.flat_amount), "flat")


def _bounds(price: Price, amount: Decimal, currency: str) -> Iterator[Line]:
    if price.maximum_amount is not None:
        maximum = Decimal(price.maximum_amount)
        if amount > maximum:
            yield Line(
                kind="maximum",
                usage_type=price.usage_type,
                description=f"{price.usage_type}: at most {amount_text(maximum, currency)}",
                amount=maximum - amount,
            )
    if price.minimum_amount is not None:
        minimum = Decimal(price.minimum_amount)
        if amount < minimum:
            yield Line(
                kind="minimum",
                usage_type=price.usage_type,
                description=f"{price.usage_type}: at least {amount_text(minimum, currency)}",
                amount=minimum - amount,
            )


def _explained(usage_type: str, quantity: Decimal, included: Decimal, steps: list[Step]) -> str:
    """The calculation as one would write it: ``calls: 120, 100 included; 20 x 0.002``."""
    text = f"{usage_type}: {plain(quantity)}"
    if included:
        text += f", {plain(included)} included"
    return text + ("; " + " + ".join(map(str, steps)) if steps else "")


def _amount(text: str | None) -> Decimal:
    return Decimal(text or "0")


def plain(number: Decimal) -> str:
    """The number without exponent and without zeros at the end of its decimals."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
