"""Usage as events of Stripe's meters: what one says, and when it may be sent.

Stripe takes whole numbers, so an event says units: hundredths of a minute where the usage type has
two decimals. It has a minute of its own among the events of its payer and usage type, by which it
can be looked up when nobody knows any more whether it arrived.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import msgspec

from ledger.domain.period import Span
from ledger.domain.stripe_invoice import USAGE_TYPES, Call, unix_seconds

CUSTOMER, VALUE = "stripe_customer_id", "value"  # where Stripe's meters look, by default
MINUTE_S = 60  # what Stripe adds up events by
_MINUTE = timedelta(minutes=1)
# Stripe takes 35 days; an hour is for the call's way, and clocks.
OLDEST = timedelta(days=35) - timedelta(hours=1)
_IDENTIFIERS = UUID("6b0b6f4e-2f0c-4f55-9d2b-5f1d1f2a7c10")


class _Formula(msgspec.Struct, frozen=True):
    formula: str


class _InPayload(msgspec.Struct, frozen=True):
    event_payload_key: str


class Meter(msgspec.Struct, frozen=True):
    """What Stripe counts usage of one kind by, of all events of that name."""

    id: str
    event_name: str
    default_aggregation: _Formula
    customer_mapping: _InPayload
    value_settings: _InPayload

    @property
    def takes_ours(self) -> bool:
        """Whether it adds up, and reads customer and value where we put them."""
        keys = (self.customer_mapping.event_payload_key, self.value_settings.event_payload_key)
        return self.default_aggregation.formula == "sum" and keys == (CUSTOMER, VALUE)


def event_name(usage_type: str) -> str:
    """Of the meter that counts a usage type. One that an operator named might name a person."""
    if usage_type in USAGE_TYPES:
        return f"billing_{usage_type}"
    return f"billing_{hashlib.sha256(usage_type.encode()).hexdigest()[:16]}"


def event_id(
    subscription_id: UUID, billing_period: date, usage_type: str, units: int, minute: datetime
) -> UUID:
    """The identifier under which Stripe counts an event once: never of another value, so that a
    duplicate is no other usage."""
    said = f"{subscription_id} {billing_period} {usage_type} {units} {unix_seconds(minute)}"
    return uuid5(_IDENTIFIERS, said)


def latest_minute(period: Span, now: datetime) -> datetime | None:
    """The last whole minute of the period that has begun by now; None while there is none."""
    latest = _floor(min(now, period.end - _MINUTE))
    return latest if latest >= period.start else None


def event_call(event: UUID, usage_type: str, units: int, minute: datetime) -> Call:
    """An event, but for the customer whose usage it is."""
    params: dict[str, Any] = {
        "event_name": event_name(usage_type),
        "identifier": str(event),
        "timestamp": unix_seconds(minute),
        "payload": {VALUE: str(units)},
    }
    return Call(operation="meter_event", ours=event, params=params)


def is_too_old(call: Call, now: datetime) -> bool:
    """Whether Stripe would refuse it for its time."""
    return now - datetime.fromtimestamp(call.params["timestamp"], UTC) > OLDEST


def _floor(instant: datetime) -> datetime:
    return instant.replace(second=0, microsecond=0)
