"""Every metric of the gateway. No label ever holds a user, an organisation or a key."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from ledger.domain.quantity import quantity_of
from lua.scripts import Outcome

USAGE = Counter("billing_usage", "Usage recorded, in whole quantities", ["usage_type"])
EXCEEDED = Counter(
    "billing_quota_exceeded", "Usage refused by a quota or rate window", ["usage_type", "reason"]
)
REVENUE = Counter("billing_revenue", "Revenue of issued invoices", ["currency"])
REFUSED = Counter("billing_usage_refused", "Usage refused for another reason", ["outcome"])
RESPONSE_TIME = Histogram(
    "billing_response_time_seconds",
    "Time to answer",
    ["route", "status"],
    buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
LAG = Gauge("billing_ledger_lag_entries", "Entries that the ledger has not drained yet")


def recorded(usage_type: str, units: int, places: int) -> None:
    # Prometheus counts in doubles; the exact figure is the ledger's.
    USAGE.labels(usage_type).inc(units if places == 0 else float(quantity_of(units, places)))


def refused(usage_type: str, outcome: Outcome) -> None:
    if outcome in (Outcome.DENIED, Outcome.RATE_LIMITED):
        EXCEEDED.labels(usage_type, outcome.name.lower()).inc()
    else:
        REFUSED.labels(outcome.name.lower()).inc()
