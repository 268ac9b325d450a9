"""The metadata guard: an allow-list of keys with typed values, so that free text, and with it
health information, has no place to enter. Source: 45 CFR 164.514(b)(2) names what must stay out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gateway.problems import Kind, Problem

MAX_KEYS = 8

_UUID = "[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_TOKEN = "[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}"  # noqa: S105 - a pattern, not a secret
_SHORT_TOKEN = re.compile(_TOKEN)
_ID = re.compile(f"{_UUID}|{_TOKEN}")

ALLOWED: Mapping[str, re.Pattern[str]] = {
    "conversation_id": _ID,
    "request_id": _ID,
    "ai_model_used": _SHORT_TOKEN,
    "feature": _SHORT_TOKEN,
    "cost_center": _SHORT_TOKEN,
    "department": _SHORT_TOKEN,
}


def check(metadata: Mapping[str, str]) -> None:
    """Raises the problem for metadata that is not allowed; never says what was sent."""
    if len(metadata) > MAX_KEYS:
        raise Problem(Kind.PHI_REJECTED, f"metadata has more than {MAX_KEYS} keys")
    for name, value in metadata.items():
        pattern = ALLOWED.get(name)
        if pattern is None:
            raise Problem(
                Kind.PHI_REJECTED, f"metadata may only have the keys {', '.join(ALLOWED)}"
            )
        if pattern.fullmatch(value) is None:
            raise Problem(Kind.PHI_REJECTED, f"metadata {name} must be an id or a short token")
