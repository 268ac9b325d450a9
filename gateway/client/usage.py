"""What is sent: bodies in which a quantity is an exact JSON number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID, uuid4

Quantity = int | Decimal | str
"""An exact number; a str such as ``"15.5"`` means the Decimal that it spells."""

Id = str | UUID

_KEY_LENGTH = 255


def number(quantity: Quantity) -> str:
    """The JSON number of a quantity, digit for digit.

    Raises TypeError for anything inexact, ValueError for what is no finite number.
    """
    if isinstance(quantity, bool) or not isinstance(quantity, int | Decimal | str):
        raise TypeError(
            f"quantity must be exact, not {type(quantity).__name__}: "
            'use an int, Decimal("15.5") or the string "15.5"'
        )
    if isinstance(quantity, int):
        return str(int(quantity))
    try:
        exact = Decimal(quantity)
    except InvalidOperation:
        raise ValueError("quantity is not a number") from None
    if not exact.is_finite():
        raise ValueError("quantity must be finite")
    return str(exact)


def usage_key(key: str | None) -> str:
    """The caller's idempotency key, or a new one. Raises ValueError for one that the service
    would not take."""
    if key is None:
        return str(uuid4())
    # An empty key would be no key at all to some, and a retry would then count twice.
    if not (1 <= len(key) <= _KEY_LENGTH and key.isprintable()):
        raise ValueError(f"key must have 1 to {_KEY_LENGTH} printable characters")
    return key


def usage_body(
    user_id: Id,
    usage_type: str,
    quantity: Quantity,
    *,
    organization_id: Id | None = None,
    metadata: Mapping[str, str] | None = None,
    occurred_at: datetime | None = None,
    key: str | None = None,
) -> bytes:
    """The body of a record or a check. Raises TypeError or ValueError for what cannot be sent."""
    fields = {
        "user_id": str(user_id),
        "usage_type": usage_type,
        "organization_id": None if organization_id is None else str(organization_id),
        "metadata": None if metadata is None else dict(metadata),
        "occurred_at": _instant(occurred_at, "occurred_at"),
        "idempotency_key": key,
    }
    return _with_quantity(
        {name: value for name, value in fields.items() if value is not None}, quantity
    )


def _with_quantity(fields: Mapping[str, Any], quantity: Quantity) -> bytes:
    # Not escaped to ASCII, so that text that is not Unicode fails here, at its caller, and not in
    # a batch that it shares with others.
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f'{text[:-1]},"quantity":{number(quantity)}}}'.encode()


def correction_body(quantity: Quantity, reason: str, key: str) -> bytes:
    """The body of a correction. Raises TypeError or ValueError for what cannot be sent."""
    return _with_quantity({"reason": reason, "idempotency_key": key}, quantity)


def usage_query(
    user_id: Id | None,
    organization_id: Id | None,
    usage_type: str | None,
    since: datetime | None,
    until: datetime | None,
    page_size: int,
) -> dict[str, str]:
    """The query of a list. Raises ValueError for a time without zone."""
    given = {
        "user_id": user_id,
        "organization_id": organization_id,
        "usage_type": usage_type,
        "from": _instant(since, "since"),
        "to": _instant(until, "until"),
        "limit": page_size,
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def _instant(time: datetime | None, what: str) -> str | None:
    if time is not None and time.tzinfo is None:
        raise ValueError(f"{what} needs a time zone")
    return None if time is None else time.isoformat()
