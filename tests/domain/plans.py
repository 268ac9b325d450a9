"""Plans for the tests of this folder."""

from __future__ import annotations

from typing import Any

import msgspec

from ledger.domain.plan import Plan

PLAN: dict[str, Any] = {
    "tier": "pro",
    "name": "Pro",
    "currency": "USD",
    "interval": "month",
    "base_fee": "499.00",
    "trial_days": 0,
    "premium": False,
    "entitlements": [],
    "prices": [],
}


def make_plan(**changed: object) -> Plan:
    return msgspec.convert(PLAN | changed, Plan)


def price(usage_type: str = "calls", **changed: object) -> dict[str, object]:
    return {"usage_type": usage_type, "model": "per_unit", "unit_amount": "0.05"} | changed
