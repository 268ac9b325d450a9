"""Stripe's request bodies and queries: forms whose names have brackets."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl


def parse(text: str) -> dict[str, Any]:
    """``a[b]=1&c=2`` is ``{"a": {"b": "1"}, "c": "2"}``."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text)):
        *outer, last = re.findall(r"[^\[\]]+", name)
        place = found
        for one in outer:
            place = place.setdefault(one, {})
        assert last not in place, f"{name} is given twice"
        place[last] = value
    return {name: _listed(one) for name, one in found.items()}


def _listed(value: Any) -> Any:
    """``a[0]=x&a[1]=y`` is a list."""
    if isinstance(value, dict) and all(name.isdigit() for name in value):
        return [value[name] for name in sorted(value, key=int)]
    return value
