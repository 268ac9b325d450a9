"""Billing periods: half-open ``[start, end)``, anchored where the subscription began.

Boundaries are midnight of the customer's time zone; a day that a month does not have is
clamped to its last day without moving the anchor (31 Jan, 28 Feb, 31 Mar).
"""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

Interval = Literal["month", "year"]

_MONTHS: dict[str, int] = {"month": 1, "year": 12}
_MICROSECOND = timedelta(microseconds=1)
# Zones of this machine, not of IANA: a ledger elsewhere could not read usage that names them.
_LOCAL_ZONES = ("localtime", "posix", "right/")


class Span(msgspec.Struct, frozen=True):
    """A stretch of time; `start` and `end` are UTC instants, `start` included, `end` not."""

    start: datetime
    end: datetime

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant < self.end

    @property
    def microseconds(self) -> int:
        """How long it is, exactly: clocks that change make a day 23 or 25 hours."""
        return (self.end - self.start) // _MICROSECOND


class Period(Span, frozen=True):
    """One billing period."""

    billing_date: date  # local date of the start: the `billing_period` column of the spec


def zone(name: str) -> tzinfo:
    """The named time zone; UTC needs no tz database."""
    return UTC if name == "UTC" else ZoneInfo(name)


def is_zone(name: str) -> bool:
    """Whether it names an IANA time zone."""
    try:
        zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return not name.startswith(_LOCAL_ZONES)


def period_at(instant: datetime, anchor: date, interval: Interval, timezone: str) -> Period:
    """The period of a subscription anchored at local date `anchor` that contains `instant`."""
    tz = zone(timezone)
    local = instant.astimezone(tz).date()
    step = _MONTHS[interval]
    index = ((local.year - anchor.year) * 12 + local.month - anchor.month) // step
    if local < _boundary(anchor, index, step):
        index -= 1
    first = _boundary(anchor, index, step)
    start = midnight(first, tz)
    end = midnight(_boundary(anchor, index + 1, step), tz)
    return Period(start, end, first)


def calendar_month(instant: datetime) -> Period:
    """The UTC calendar month: the period of a user without a subscription."""
    return period_at(instant, date(2000, 1, 1), "month", "UTC")


def _boundary(anchor: date, index: int, step: int) -> date:
    months = anchor.year * 12 + anchor.month - 1 + index * step
    year, month = divmod(months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(anchor.day, last))


def midnight(day: date, tz: tzinfo) -> datetime:
    """The instant at which a local day begins."""
    return datetime.combine(day, time(), tz).astimezone(UTC)
