"""The catalogue: usage types and plan versions."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.domain.money import amount_text
from ledger.domain.period import Interval
from ledger.domain.plan import Entitlement, Plan, Price
from ledger.store.queries import QUERIES

entitlements = msgspec.json.Decoder(tuple[Entitlement, ...])
_prices = msgspec.json.Decoder(tuple[Price, ...])


class PlanVersion(msgspec.Struct, frozen=True):
    plan_tier: str
    version: int
    interval: Interval
    entitlements: tuple[Entitlement, ...]


async def insert_usage_type(db: Executor, name: str, decimal_places: int, about: str) -> None:
    await db.execute(QUERIES["insert_usage_type"], name, decimal_places, about)


async def insert_first_plan(
    db: Executor, plan: Plan, base_fee: Decimal, entitlements: str, prices: str
) -> None:
    await db.execute(
        QUERIES["insert_first_plan"],
        plan.tier,
        plan.name,
        plan.currency,
        plan.interval,
        base_fee,
        plan.trial_days,
        plan.premium,
        entitlements,
        prices,
    )


async def usage_types(db: Executor) -> dict[str, int]:
    """Decimal places of every usage type."""
    rows = await db.fetch(QUERIES["usage_types"])
    return {row["usage_type"]: row["decimal_places"] for row in rows}


async def plan(db: Executor, tier: str, version: int | None = None) -> tuple[int, Plan] | None:
    """A version of a plan, the newest public one unless one is named, with its number."""
    row = await db.fetchrow(QUERIES["plan"], tier, version)
    return None if row is None else (row["version"], _plan(row))


async def is_public(db: Executor, tier: str, version: int) -> bool:
    """Whether there is such a version, and it is nobody's own."""
    return bool(await db.fetchval(QUERIES["is_public_plan"], tier, version))


async def own_plans(db: Executor, subscription_id: UUID, tier: str) -> list[tuple[int, Plan]]:
    """A subscription's own versions of a plan with their numbers, newest first."""
    rows = await db.fetch(QUERIES["own_plans"], subscription_id, tier)
    return [(row["version"], _plan(row)) for row in rows]


async def newest_plan(db: Executor, tier: str) -> PlanVersion | None:
    """The newest public version."""
    row = await db.fetchrow(QUERIES["newest_plan"], tier)
    if row is None:
        return None
    return PlanVersion(
        row["plan_tier"], row["version"], row["interval"], entitlements.decode(row["entitlements"])
    )


async def plans(db: Executor) -> list[tuple[int, Plan]]:
    """The newest public version of every plan, with its number."""
    return [(row["version"], _plan(row)) for row in await db.fetch(QUERIES["plans"])]


async def lock_catalogue(db: Executor) -> None:
    """Nobody else makes a plan version until this transaction ends."""
    await db.execute(QUERIES["lock_catalogue"])


async def insert_plan(db: Executor, plan: Plan, own: UUID | None = None) -> int:
    """The next version of a plan, public or a subscription's `own`; its number. Only while holding
    the catalogue."""
    version: int = await db.fetchval(
        QUERIES["insert_plan"],
        plan.tier,
        plan.name,
        plan.currency,
        plan.interval,
        Decimal(plan.base_fee),
        plan.trial_days,
        plan.premium,
        msgspec.json.encode(plan.entitlements).decode(),
        msgspec.json.encode(plan.prices).decode(),
        own,
    )
    return version


class UsageType(msgspec.Struct, frozen=True):
    usage_type: str
    decimal_places: int
    description: str


async def list_usage_types(db: Executor) -> list[UsageType]:
    return [UsageType(**dict(row)) for row in await db.fetch(QUERIES["list_usage_types"])]


async def put_usage_type(
    db: Executor, name: str, decimal_places: int, about: str | None
) -> str | None:
    """Makes it, or changes what is said about it (None: stays); what is said then. None when its
    decimal places are others."""
    found: str | None = await db.fetchval(QUERIES["put_usage_type"], name, decimal_places, about)
    return found


def _plan(row: Mapping[str, Any]) -> Plan:
    return Plan(
        tier=row["plan_tier"],
        name=row["name"],
        currency=row["currency"],
        interval=row["interval"],
        base_fee=amount_text(row["base_fee"], row["currency"]),
        trial_days=row["trial_days"],
        premium=row["premium"],
        entitlements=entitlements.decode(row["entitlements"]),
        prices=_prices.decode(row["prices"]),
    )
