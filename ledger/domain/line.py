"""A line of an invoice: one amount, and what it is for."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec

from ledger.domain.period import Span

LineKind = Literal[
    "base_fee", "usage", "minimum", "maximum", "proration", "credit", "adjustment", "tax",
    "discount",
]  # fmt: skip


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One amount of an invoice in whole minor units; negative when it is in the customer's favour.

    `quantity` is billable quantity, what is included in the plan as well. `unit_amount` is what
    each unit beyond the included costs; None where no one number says so.
    """

    kind: LineKind
    description: str
    amount: Decimal
    usage_type: str | None = None
    quantity: Decimal | None = None
    unit_amount: Decimal | None = None
    plan_tier: str | None = None
    plan_version: int | None = None
    span: Span | None = None  # when it was used, or what time is paid for
