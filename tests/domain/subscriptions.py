"""A subscription in each state, for the tests of this folder."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from msgspec.structs import replace

from ledger.domain.proration import base_fee
from ledger.domain.subscription import PendingChange, Subscription, SubscriptionStatus
from tests.domain.plans import make_plan

NOW = datetime(2026, 4, 16, tzinfo=UTC)  # half of April
END = datetime(2026, 5, 1, tzinfo=UTC)
TRIAL_END = datetime(2026, 4, 20, tzinfo=UTC)
BASIC = make_plan(tier="basic", base_fee="30.00")
PRO = make_plan(tier="pro", base_fee="300.00")
YEARLY = make_plan(tier="yearly", base_fee="3000.00", interval="year")
PENDING = PendingChange("pro", 2, "month", END)


def subscription(status: SubscriptionStatus = "active", **changed: Any) -> Subscription:
    one = Subscription(status, "basic", 1, "month", date(2026, 1, 1), "UTC")
    if status == "trialing":
        one = replace(one, anchor=TRIAL_END.date(), trial_end=TRIAL_END)
    return replace(one, **changed)


ADVANCE = base_fee(BASIC, 1, subscription().period(NOW))
