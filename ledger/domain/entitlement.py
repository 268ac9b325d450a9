"""Which limits apply to a user and to its organisation's pool, and who pays. Pure.

User caps come from the user's own subscription, else from the organisation's; a pool only from
the organisation's; without either the default tier applies, by UTC calendar month.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from ledger.domain.period import Interval, Period, period_at
from ledger.domain.plan import Entitlement, Scope
from ledger.domain.quantity import MAX_UNITS, units_of_decimal
from ledger.domain.usage import Terms

_LETTERS = {"hard": "h", "soft": "s", "shadow": "w"}
_CALENDAR_MONTH = date(2000, 1, 1)
_MICROSECONDS = 1_000_000
Granted = Mapping[str, int]
"""Units by usage type that a quota has beyond its plan's limit in a period."""


class Source(msgspec.Struct, frozen=True):
    """A subscription, or the default tier standing in for one."""

    plan_tier: str
    plan_version: int
    interval: Interval
    entitlements: tuple[Entitlement, ...]
    subscription_id: UUID | None = None
    anchor: date = _CALENDAR_MONTH
    timezone: str = "UTC"
    blocked: str = ""  # why its usage is refused: a word that callers are told

    def period(self, now: datetime) -> Period:
        return period_at(now, self.anchor, self.interval, self.timezone)

    def entitlement(self, usage_type: str, scope: Scope) -> Entitlement | None:
        for one in self.entitlements:
            if one.usage_type == usage_type and one.scope == scope:
                return one
        return None

    @property
    def terms(self) -> Terms:
        return Terms(
            self.subscription_id.bytes if self.subscription_id else None,
            self.plan_tier,
            self.plan_version,
            self.anchor.toordinal(),
            self.interval,
            self.timezone,
        )


class Rule(msgspec.Struct, frozen=True):
    """A limit as the scripts read it, in units; see ``lua/include/quota.lua`` for letters."""

    usage_type: str
    enforcement: str
    limit: int | None  # None: unlimited
    rate_limit: int
    rate_window_us: int
    rollover: int = 0  # how much of `limit` was left over of the last period


class Entitled(msgspec.Struct, frozen=True):
    """Everything an account's quota hashes are made of, but the counts."""

    user: Source
    pool: Source | None
    payer: Source

    def user_rules(self, usage_types: dict[str, int], granted: Granted) -> list[Rule]:
        """A rule for every known usage type: one that the plan does not name is not allowed."""
        rules = []
        for usage_type, places in usage_types.items():
            entitlement = self.user.entitlement(usage_type, "user")
            if entitlement is not None:
                rules.append(_rule(entitlement, places, granted))
            elif self.pool and self.pool.entitlement(usage_type, "organization"):
                rules.append(Rule(usage_type, "n", None, 0, 0))  # the pool alone decides
            else:
                rules.append(Rule(usage_type, "x", 0, 0, 0))
        return rules

    def pool_rules(self, usage_types: dict[str, int], granted: Granted) -> list[Rule]:
        """A rule for every usage type: a pool's usage is counted with or without a limit."""
        rules = []
        for usage_type, places in usage_types.items():
            entitlement = self.pool and self.pool.entitlement(usage_type, "organization")
            rules.append(
                _rule(entitlement, places, granted)
                if entitlement
                else Rule(usage_type, "n", None, 0, 0)
            )
        return rules

    @property
    def blocked(self) -> str:
        """Why usage is refused altogether; empty when it is not."""
        return self.user.blocked or self.payer.blocked

    def good_until(self, now: datetime) -> datetime:
        """Until when a user's quota may be used: a subscription ends, or takes its next plan, where
        a period of its own ends, and whoever pays may have other periods than the user. (The pool
        is the payer's; one of the default tier changes by its version alone.)"""
        return min(self.user.period(now).end, self.payer.period(now).end)


def entitled(
    own: Source | None, organization: Source | None, default: Source, *, pooled: bool
) -> Entitled:
    """Combines a user's own and an organisation's subscription with the default tier."""
    return Entitled(
        user=own or organization or default,
        pool=(organization or default) if pooled else None,
        payer=organization or own or default,
    )


def left_over(limit: int, most: int, used: int, granted: int) -> int:
    """What a period hands on to the next one, all in units: what is unused of its plan's `limit`,
    `most` at most. What it was `granted` itself is used first, and not handed on."""
    return min(most, max(0, limit - max(0, used - granted)))


def _rule(entitlement: Entitlement, places: int, granted: Granted) -> Rule:
    rate, window = 0, 0
    if entitlement.rate_limit is not None:
        rate = entitlement.rate_limit.limit * 10**places
        window = entitlement.rate_limit.window_seconds * _MICROSECONDS
    limit, more = None, 0
    if entitlement.limit is not None:
        own = units_of_decimal(Decimal(entitlement.limit), places)
        limit = min(own + granted.get(entitlement.usage_type, 0), MAX_UNITS)
        more = limit - own
    letter = _LETTERS[entitlement.enforcement]
    return Rule(entitlement.usage_type, letter, limit, rate, window, more)
