"""What may leave for Stripe, written down a second time: opaque ids, numbers and fixed words.

Nothing here is read from the product's own list: what leaves too much by a mistake there is found
by this one. `CANARIES` are put into the data by tests; none may be in anything that arrives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote_plus

# A name, an e-mail, a record number; what people type as plan, metadata, reason, description.
CANARIES = {
    "organization": "Maria Musterfrau Clinic",
    "contact": "Erika Mustermann",
    "e-mail": "erika.mustermann@clinic.example",
    "cost center": "canary-oncology",
    "metadata": "canary-of-ward-seven",
    "plan": "canary-hospice",
    "usage type": "canary_dialysis",
    "key": "canary-key-of-john-doe",
    "correction": "canary: sent twice for John Doe",
    "credit": "canary: goodwill to Jane Roe",
    "void": "canary: Jane Roe has died",
    "line": "canary: said of a line",
}

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_STRIPE_ID = r"(cus|in|ii|cn|evt|mtr|mtrusg)_\w{1,64}"
_INTEGER = r"-?[0-9]{1,15}"
_LINES = (
    "Base fee|Usage|Minimum|Maximum|Rest of the period|Credit|Late usage|Tax|Discount"
)  # fmt: skip
_TYPES = "conversation minutes|API calls|AI tokens|feature uses|other usage"
_VALUES = {
    "amount": _INTEGER,
    "auto_advance": "false",
    "collection_method": "send_invoice",
    "created.gte": _INTEGER,
    "created.lt": _INTEGER,
    "currency": "[a-z]{3}",
    "customer": _STRIPE_ID,
    "days_until_due": "[0-9]{1,3}",
    "description": rf"({_LINES})(: ({_TYPES}))?(, -?[0-9.]{{1,40}})?",
    "email_type": "none",
    "end_time": _INTEGER,
    "event_name": "billing_(api_calls|conversation_minutes|ai_tokens|feature_uses|[0-9a-f]{16})",
    "identifier": _UUID,
    "invoice": _STRIPE_ID,
    "limit": "[0-9]{1,3}",
    "metadata.billing_id": _UUID,
    "number": "INV-[0-9]{8,20}",
    "payload.stripe_customer_id": _STRIPE_ID,
    "payload.value": _INTEGER,
    "pending_invoice_items_behavior": "exclude",
    "period.end": _INTEGER,
    "period.start": _INTEGER,
    "start_time": _INTEGER,
    "starting_after": _STRIPE_ID,
    "status": "active",
    "timestamp": _INTEGER,
    "types": r"invoice\.[a-z_]{1,30}",
}
_HEADERS = {
    "Accept": r"\*/\*",
    "Accept-Encoding": r"[a-z, ]{1,40}",
    "Authorization": r"Bearer sk_test_\w{1,40}",
    "Content-Length": "[0-9]{1,6}",
    "Content-Type": "application/x-www-form-urlencoded",
    "Host": r"127\.0\.0\.1:[0-9]{1,5}",
    "Idempotency-Key": rf"billing-[a-z_]{{1,20}}-{_UUID}(-[0-9]{{1,6}})?",
    "Stripe-Version": r"[0-9-]{10}\.[a-z]{1,20}",
    "User-Agent": r"Python/[0-9.]+ aiohttp/[0-9.]+",
}
_PATH = rf"/v1/(billing/)?[a-z_]{{1,20}}(/{_STRIPE_ID}(/[a-z_]{{1,20}})?)?"


def leaks(path: str, headers: Mapping[str, str], text: str, params: Mapping[str, Any]) -> list[str]:
    """What of a request is more than may leave."""
    whole = unquote_plus("\n".join((path, text, *headers.keys(), *headers.values()))).lower()
    found = [f"the canary {name}" for name, word in CANARIES.items() if word.lower() in whole]
    if not re.fullmatch(_PATH, path, re.ASCII):
        found.append(f"path {path}")
    sent = [(_HEADERS, "header", headers.items()), (_VALUES, "field", _leaves(params))]
    for allowed, kind, pairs in sent:
        for name, value in pairs:
            if not re.fullmatch(allowed.get(name, "(?!)"), value, re.ASCII):
                found.append(f"{kind} {name}: {value}")
    return found


def _leaves(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield from ((f"{prefix}{name}", one) for one in value)
        else:
            yield f"{prefix}{name}", value
