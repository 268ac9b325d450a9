"""The plan catalogue's types: what a plan allows (entitlements) and what it charges (prices).

What a type cannot say is in `ledger.domain.plan_problems`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ledger.domain.text import END, Text

Scope = Literal["user", "organization"]
Enforcement = Literal["hard", "soft", "shadow"]
Model = Literal["per_unit", "graduated", "volume", "package", "flat"]
Policy = Literal["exact", "ceil", "cms_8_minute", "cpt_midpoint", "threshold"]

# A decimal in a string, as money and plan numbers travel: exact, never a float, never NaN.
DecimalText = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,12}(\.[0-9]{1,6})?" + END)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,49}" + END)]


class RateLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most `limit` whole quantities of the usage type in any `window_seconds`."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
    window_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)]


class Rollover(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much unused quota the next period inherits at most."""

    max: DecimalText


class Entitlement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a plan allows of one usage type, for each user or for the organisation's pool."""

    usage_type: Name
    scope: Scope
    limit: DecimalText | None
    enforcement: Enforcement
    rollover: Rollover | None = None
    rate_limit: RateLimit | None = None


class PriceTier(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What units up to and including `up_to` cost (null: without end), counted from the first
    one that is not included: `unit_amount` each, and `flat_amount` once when the tier is reached.
    """

    up_to: DecimalText | None
    unit_amount: DecimalText | None = None
    flat_amount: DecimalText | None = None


class UnitPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How measured quantity becomes billable quantity: see `ledger.domain.unit_policy`."""

    policy: Policy
    size: DecimalText | None = None


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one usage type costs under a plan: see `ledger.domain.rating`."""

    usage_type: Name
    model: Model
    unit_amount: DecimalText | None = None
    package_size: DecimalText | None = None
    tiers: tuple[PriceTier, ...] | None = None
    included: DecimalText = "0"
    minimum_amount: DecimalText | None = None
    maximum_amount: DecimalText | None = None
    units: UnitPolicy | None = None


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One version of a plan; versions are never edited, a change makes a new one."""

    tier: Name
    name: Text
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}" + END)]
    interval: Literal["month", "year"]
    base_fee: DecimalText
    trial_days: Annotated[int, msgspec.Meta(ge=0, le=366)]
    premium: bool
    entitlements: tuple[Entitlement, ...]
    prices: tuple[Price, ...]
