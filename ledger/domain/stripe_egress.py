"""The last look at what goes to Stripe: our ids, Stripe's ids, numbers and fixed words.

An allow-list of fields, each with what it may hold. Health data and names cannot be told from other
text with certainty, so there is no field for text at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ledger.domain.stripe_event import EVENT_TYPES
from ledger.domain.stripe_invoice import KINDS, OTHER_USAGE, OUR_ID, USAGE_TYPES


class NotOpaque(ValueError):
    """Something would leave that must not. Names the field, never what is in it."""


def _any_of(words: Iterator[str]) -> str:
    return "|".join(re.escape(word) for word in words)


_NUMBER = r"-?\d{1,15}"
_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OF_STRIPE = r"[A-Za-z0-9]{1,64}"
_USAGE = _any_of(iter((*USAGE_TYPES.values(), OTHER_USAGE)))
_FIELDS = {
    name: re.compile(pattern, re.ASCII)
    for name, pattern in {
        f"metadata.{OUR_ID}": _UUID,
        "amount": _NUMBER,
        "auto_advance": "False",  # nothing is sent to anyone by Stripe
        "collection_method": "send_invoice",
        "created.gte": _NUMBER,
        "created.lt": _NUMBER,
        "currency": r"[a-z]{3}",
        "customer": rf"cus_{_OF_STRIPE}",
        "days_until_due": r"\d{1,3}",
        "description": rf"({_any_of(iter(KINDS.values()))})(: ({_USAGE}))?(, -?\d+(\.\d+)?)?",
        "email_type": "none",
        "end_time": _NUMBER,
        "event_name": rf"billing_({_any_of(iter(USAGE_TYPES))}|[0-9a-f]{{16}})",
        "identifier": _UUID,
        "invoice": rf"in_{_OF_STRIPE}",
        "limit": r"\d{1,3}",
        "number": r"INV-\d{8,20}",
        "payload.stripe_customer_id": rf"cus_{_OF_STRIPE}",
        "payload.value": r"-?\d{1,18}",
        "pending_invoice_items_behavior": "exclude",
        "period.end": _NUMBER,
        "period.start": _NUMBER,
        "start_time": _NUMBER,
        "starting_after": rf"(cus|in|ii|cn|evt|mtr|mtrusg)_{_OF_STRIPE}(_{_OF_STRIPE})?",
        "status": "active",
        "timestamp": _NUMBER,
        "types": _any_of(iter(EVENT_TYPES)),
    }.items()
}
_PATH = re.compile(
    rf"/v1/(customers|invoiceitems|credit_notes|events|invoices(/in_{_OF_STRIPE}(/(finalize|void))?)?"
    rf"|billing/(meter_events|meters(/mtr_{_OF_STRIPE}(_{_OF_STRIPE})?/event_summaries)?))"
)


def check(path: str, params: Mapping[str, Any]) -> None:
    """Raises `NotOpaque` for what may not leave."""
    if not _PATH.fullmatch(path):
        raise NotOpaque("a path that is not one of ours")
    for field, value in _leaves(params, ""):
        allowed = _FIELDS.get(field)
        if allowed is None:
            # Not even its name: the keys of metadata are text too.
            raise NotOpaque("a field that is not one of ours")
        if not allowed.fullmatch(str(value)):
            raise NotOpaque(f"{field} holds what may not leave")


def _leaves(params: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield from ((f"{prefix}{name}", one) for one in value)
        else:
            yield f"{prefix}{name}", value
