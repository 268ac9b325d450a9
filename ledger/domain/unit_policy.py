"""How measured quantity becomes billable quantity, before any price.

| policy | grouping | billable |
|---|---|---|
| `exact` | none | as measured |
| `ceil` | record | up to the next multiple of `size` (1), still in the usage type's measure |
| `cms_8_minute` | user and local day | 15-minute units: ``floor((minutes + 7) / 15)`` |
| `cpt_midpoint` | record | units of `size`, each earned once more than half of it has passed |
| `threshold` | user and calendar month | units of `size`, each of them in full |

A group's total decides how many units there are; its records then share them: whole sizes first,
what is left by the largest remainders. A record is one service: what corrects it has its key, user
and day and belongs to it. A local day is one of the subscription's time zone. Groups end with the
billing period and with the plan version, so minutes on both sides of such an end never make a unit
together; a calendar month is cut unless periods begin on the 1st.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from datetime import date
from decimal import Decimal
from typing import Literal

import msgspec

from ledger.domain.money import exact
from ledger.domain.plan import Policy, UnitPolicy

Grouping = Literal["none", "record", "user_day", "user_month"]

GROUPING: dict[Policy, Grouping] = {
    "exact": "none",
    "ceil": "record",
    "cms_8_minute": "user_day",
    "cpt_midpoint": "record",
    "threshold": "user_month",
}
_EXACT = UnitPolicy(policy="exact")
_CMS_UNIT, _CMS_BEFORE = Decimal(15), Decimal(7)  # minutes


class Measured(msgspec.Struct, frozen=True):
    """Quantity of one record (a service) of a user on a local day."""

    user: str
    day: date
    record: str
    quantity: Decimal


def billable(policy: UnitPolicy | None, measured: Sequence[Measured]) -> list[Measured]:
    """Billable quantity of each record, in the order of its first appearance.

    The sum is what `ledger.domain.rating` prices. Of equal remainders the record that comes
    first is given the unit, so hand them in in the order of the ledger. Raises ValueError when a
    record sums to less than 0.
    """
    policy = policy or _EXACT
    with exact():
        records = _netted(measured)
        groups: defaultdict[Hashable, list[int]] = defaultdict(list)
        for index, one in enumerate(records):
            groups[_group(policy, one)].append(index)
        quantities = [one.quantity for one in records]
        for group in groups.values():
            shares = _shares(policy, [quantities[index] for index in group])
            for index, share in zip(group, shares, strict=True):
                quantities[index] = share
    return [
        msgspec.structs.replace(one, quantity=quantity)
        for one, quantity in zip(records, quantities, strict=True)
    ]


def _netted(measured: Sequence[Measured]) -> list[Measured]:
    """One per record, with its corrections."""
    totals: dict[tuple[str, date, str], Decimal] = {}
    for one in measured:
        key = (one.user, one.day, one.record)
        totals[key] = totals.get(key, Decimal(0)) + one.quantity
    if min(totals.values(), default=0) < 0:
        raise ValueError("a record's corrections exceed what it measured")
    return [Measured(*key, quantity) for key, quantity in totals.items()]


def _group(policy: UnitPolicy, one: Measured) -> Hashable:
    match GROUPING[policy.policy]:
        case "user_day":
            return one.user, one.day
        case "user_month":
            return one.user, one.day.year, one.day.month
        case _:
            return one.user, one.day, one.record


def _shares(policy: UnitPolicy, quantities: list[Decimal]) -> list[Decimal]:
    """What each record of a group is billed: the units its total makes, given to those who made
    most of them."""
    if policy.policy == "exact":
        return quantities
    size = _CMS_UNIT if policy.policy == "cms_8_minute" else Decimal(policy.size or "1")
    units = [quantity // size for quantity in quantities]
    left = int(_earned(policy.policy, size, sum(quantities, Decimal(0))) - sum(units))
    by_remainder = sorted(range(len(units)), key=lambda i: -(quantities[i] % size))
    for index in by_remainder[:left]:
        units[index] += 1
    return [one * size for one in units] if policy.policy == "ceil" else units


def _earned(policy: Policy, size: Decimal, total: Decimal) -> Decimal:
    whole, rest = divmod(total, size)
    match policy:
        case "ceil":
            return whole + (rest > 0)
        case "cms_8_minute":
            return (total + _CMS_BEFORE) // size
        case "cpt_midpoint":
            return whole + (2 * rest > size)
        case _:
            return whole
