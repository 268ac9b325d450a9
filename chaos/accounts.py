"""Who sends in an episode: accounts with limits that are never reached, and with such that are."""

from __future__ import annotations

import random
from datetime import date
from itertools import count, product
from uuid import UUID

import msgspec

from ledger import db
from lua.keys import partition_of

PARTITIONS = 4  # as many as make two ledgers share, few enough to be watched
CALLS, MINUTES = "api_calls", "conversation_minutes"
_TIGHT, _WIDE = "chaos_tight", "chaos_wide"
_CALENDAR_MONTH = date(2000, 1, 1)

# usage type, scope, limit, enforcement. A tight pool is less than its members' caps together, so
# that both bind.
_PLANS = {
    _TIGHT: (
        (CALLS, "user", "250", "hard"),
        (CALLS, "organization", "700", "hard"),
        (MINUTES, "user", "60.5", "hard"),
        (MINUTES, "organization", "150.25", "soft"),
    ),
    _WIDE: (
        (CALLS, "user", "1000000000", "hard"),
        (CALLS, "organization", "999999999999", "hard"),
        (MINUTES, "user", None, "hard"),
        (MINUTES, "organization", "5000", "soft"),
    ),
}
_MEMBERS = {_TIGHT: 5, _WIDE: 10}
_ORGANIZATIONS = {_TIGHT: 2, _WIDE: 6}
_ALONE = 10  # users without organisation: half of them on the tight plan, half on the default one
_TIGHT_SHARE = 0.1  # of what is sent: a refusal is looked up in the ledger each time


class Account(msgspec.Struct, frozen=True):
    user_id: UUID
    organization_id: UUID | None


class Accounts:
    """The accounts of one episode: nobody has used them before."""

    def __init__(self, episode: int) -> None:
        self._episode = episode
        self._alone = [Account(self._id(0, 0, n), None) for n in range(_ALONE)]
        self._members = {
            tier: [
                Account(self._id(1, number, n), self._organization(tier, number))
                for number, n in product(range(_ORGANIZATIONS[tier]), range(_MEMBERS[tier]))
            ]
            for tier in _PLANS
        }

    def choose(self, dice: random.Random) -> Account:
        chance = dice.random()
        if chance < _TIGHT_SHARE:
            return dice.choice(self._members[_TIGHT])
        if chance < 2 * _TIGHT_SHARE:
            return dice.choice(self._alone)
        return dice.choice(self._members[_WIDE])

    def of_partition(self, partition: int) -> Account:
        """A user alone whom nobody else sends for."""
        users = (Account(self._id(5, 0, number), None) for number in count())
        return next(
            one for one in users if partition_of(b"u" + one.user_id.bytes, PARTITIONS) == partition
        )

    async def subscribe(self, sql: db.Connection) -> None:
        """Puts the organisations, and half of those who are alone, on their plans."""
        for tier, number in _each_organization():
            await _subscribe(
                sql, tier, self._id(2, number, 0), self._organization(tier, number), "organization"
            )
        for one in self._alone[::2]:
            await _subscribe(sql, _TIGHT, one.user_id, None, "user")

    def _organization(self, tier: str, number: int) -> UUID:
        return self._id(3 if tier == _TIGHT else 4, number, 0)

    def _id(self, kind: int, group: int, number: int) -> UUID:
        return UUID(f"{self._episode:08x}-{kind:04x}-4000-8000-{group:06x}{number:06x}")


async def add_plans(sql: db.Connection) -> None:
    """The two plans; they stay when a database is used again."""
    for tier, entitlements in _PLANS.items():
        named = [
            dict(zip(("usage_type", "scope", "limit", "enforcement"), one, strict=True))
            for one in entitlements
        ]
        await sql.execute(
            "INSERT INTO billing_plans (plan_tier, version, name, currency, interval, base_fee,"
            " entitlements, prices) VALUES ($1::TEXT, 1, $1::TEXT, 'USD', 'month', 0, $2, '[]')",
            tier,
            msgspec.json.encode(named).decode(),
        )


def _each_organization() -> list[tuple[str, int]]:
    return [(tier, number) for tier, count in _ORGANIZATIONS.items() for number in range(count)]


async def _subscribe(
    sql: db.Connection, tier: str, user: UUID, organization: UUID | None, scope: str
) -> None:
    await sql.execute(
        "INSERT INTO subscriptions (user_id, organization_id, scope, plan_tier, plan_version,"
        " status, anchor) VALUES ($1, $2, $3, $4, 1, 'active', $5)",
        user,
        organization,
        scope,
        tier,
        _CALENDAR_MONTH,
    )
