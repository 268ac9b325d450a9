"""The one place that reads this machine's clock. Nothing that counts depends on it: periods and
receipts follow Redis time, which the scripts read themselves."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    return datetime.now(UTC)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def monotonic() -> float:
    """Seconds, for durations and deadlines only."""
    return time.monotonic()
