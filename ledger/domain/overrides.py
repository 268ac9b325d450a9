"""What one customer's terms say otherwise than the plan that everybody can have."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Annotated, TypeVar

import msgspec
from msgspec.structs import replace

from ledger.domain.plan import DecimalText, Entitlement, Plan, Price
from ledger.domain.plan_problems import PlanError
from ledger.domain.text import Text

T = TypeVar("T")
MOST = 1000  # entries of a kind: a plan has one for each usage type and scope


class Overrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Each entry takes the place of the plan's for the same usage type (and scope), or is added;
    what is not named stays the plan's."""

    name: Text | None = None
    base_fee: DecimalText | None = None
    entitlements: Annotated[tuple[Entitlement, ...], msgspec.Meta(max_length=MOST)] = ()
    prices: Annotated[tuple[Price, ...], msgspec.Meta(max_length=MOST)] = ()


def overridden(plan: Plan, overrides: Overrides) -> Plan:
    """The plan with these in it. Raises `PlanError` where two of them are about the same."""
    return replace(
        plan,
        name=plan.name if overrides.name is None else overrides.name,
        base_fee=plan.base_fee if overrides.base_fee is None else overrides.base_fee,
        entitlements=_merged(
            "entitlements",
            plan.entitlements,
            overrides.entitlements,
            lambda one: (one.usage_type, one.scope),
        ),
        prices=_merged("prices", plan.prices, overrides.prices, lambda one: one.usage_type),
    )


def _merged(
    field: str, plan: Sequence[T], given: Sequence[T], about: Callable[[T], Hashable]
) -> tuple[T, ...]:
    instead = {about(one): one for one in given}
    if len(instead) < len(given):
        raise PlanError([f"overrides.{field}: two are about the same"])
    kept = [instead.pop(about(one), one) for one in plan]
    return (*kept, *instead.values())
