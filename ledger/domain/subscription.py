"""The life of a subscription."""

from __future__ import annotations

from typing import Literal

SubscriptionStatus = Literal["trialing", "active", "past_due", "paused", "canceled", "expired"]
