"""When each plan version of a subscription was in force, from the subscription's history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

import msgspec

from ledger.domain.period import Span, midnight, zone
from ledger.domain.subscription import ENDED, SubscriptionStatus

PlanVersion = tuple[str, int]  # tier and version


class Stand(msgspec.Struct, frozen=True):
    """A subscription as it stood from an instant on."""

    since: datetime
    status: SubscriptionStatus
    plan_tier: str
    plan_version: int
    anchor: date
    timezone: str
    trial_end: datetime | None


def in_force(history: Sequence[Stand], period: Span) -> dict[PlanVersion, tuple[Span, ...]]:
    """The spans of a period in which each plan version was in force, neither paused nor ended, in
    the order they began. A subscription's first day counts whole: its first stand has no beginning
    of its own."""
    found: dict[PlanVersion, list[Span]] = {}
    for index, stand in enumerate(history):
        if stand.status in ENDED or stand.status == "paused":
            continue
        since = max(stand.since, period.start) if index else period.start
        following = history[index + 1].since if index + 1 < len(history) else period.end
        until = min(following, period.end)
        if since >= until:
            continue
        spans = found.setdefault((stand.plan_tier, stand.plan_version), [])
        if spans and spans[-1].end == since:
            spans[-1] = Span(spans[-1].start, until)
        else:
            spans.append(Span(since, until))
    return {version: tuple(spans) for version, spans in found.items()}


def stand_at(history: Sequence[Stand], instant: datetime) -> Stand:
    """The one in force at an instant; the first for what came before."""
    return next((one for one in reversed(history) if one.since <= instant), history[0])


def stand_of(history: Sequence[Stand], billing_period: date, timezone: str) -> Stand:
    """The one that a period goes by: in force when its first day ended, because a subscription may
    have begun anew on that day."""
    next_day = midnight(billing_period + timedelta(days=1), zone(timezone))
    return stand_at(history, next_day - timedelta(microseconds=1))
