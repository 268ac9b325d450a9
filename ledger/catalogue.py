"""The shipped catalogue: usage types and plans, as data."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from importlib.resources import files
from typing import Annotated
from uuid import UUID

import msgspec

from ledger import db, reload, store
from ledger.domain.money import amount_text
from ledger.domain.overrides import Overrides, overridden
from ledger.domain.plan import Name, Plan
from ledger.domain.plan_problems import check


class UsageType(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A meter: its name, and how many decimal places its quantities have."""

    usage_type: Name
    decimal_places: Annotated[int, msgspec.Meta(ge=0, le=6)]
    description: str = ""


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    usage_types: tuple[UsageType, ...]
    plans: tuple[Plan, ...]


def shipped() -> Catalogue:
    return msgspec.json.decode(
        files("ledger").joinpath("catalogue.json").read_bytes(), type=Catalogue
    )


class DecimalPlacesChanged(Exception):
    """A usage type has other decimal places already, and they can never change."""


class StalePlan(Exception):
    """The plan has a newer version than the one that the caller saw."""


async def put_plan(
    pool: db.Pool, plan: Plan, *, actor: str, now: datetime, if_version: int | None, default: str
) -> int:
    """A new version of the plan, unless the newest says the same; its number. Subscriptions stay
    on theirs; accounts without one follow the `default` tier to its newest version. Raises
    `StalePlan`, `ledger.domain.plan_problems.PlanError`."""
    async with pool.acquire() as connection, connection.transaction():
        await store.catalogue.lock_catalogue(connection)
        check(plan, await store.usage_types(connection))
        plan = _as_read_back(plan)
        newest, old = await store.plan(connection, plan.tier) or (0, None)
        if if_version not in (None, newest):
            raise StalePlan
        if old == plan:
            return newest
        version = await store.catalogue.insert_plan(connection, plan)
        details = {"plan_tier": plan.tier, "plan_version": version}
        await store.insert_audit_event(connection, "plan_changed", actor, details, now)
        if plan.tier == default:
            await reload.owe(connection)
        return version


async def own_version(
    connection: db.Executor,
    subscription_id: UUID,
    public: tuple[int, Plan],
    overrides: Overrides,
    *,
    actor: str,
    now: datetime,
) -> tuple[int, Plan]:
    """The public version of a plan as it was agreed with one customer: a version that belongs to
    the subscription, made unless there is one that says the same; the public one where nothing is
    other. Within the caller's transaction; raises `ledger.domain.plan_problems.PlanError`."""
    plan = overridden(public[1], overrides)
    check(plan, await store.usage_types(connection))
    plan = _as_read_back(plan)
    if plan == public[1]:
        return public
    await store.catalogue.lock_catalogue(connection)
    for known in await store.catalogue.own_plans(connection, subscription_id, plan.tier):
        if known[1] == plan:
            return known
    version = await store.catalogue.insert_plan(connection, plan, subscription_id)
    details = {
        "plan_tier": plan.tier,
        "plan_version": version,
        "subscription_id": str(subscription_id),
    }
    await store.insert_audit_event(connection, "plan_overridden", actor, details, now)
    return version, plan


def _as_read_back(plan: Plan) -> Plan:
    """499 and 499.00 are no two versions."""
    fee = amount_text(Decimal(plan.base_fee), plan.currency)
    return msgspec.structs.replace(plan, base_fee=fee)


async def put_usage_type(
    pool: db.Pool, name: str, decimal_places: int, about: str | None, *, actor: str, now: datetime
) -> str:
    """What is said about it then; `about` None leaves that. Raises `DecimalPlacesChanged`."""
    async with pool.acquire() as connection, connection.transaction():
        said = await store.catalogue.put_usage_type(connection, name, decimal_places, about)
        if said is None:
            raise DecimalPlacesChanged
        details = {"usage_type": name, "decimal_places": decimal_places}
        await store.insert_audit_event(connection, "usage_type_changed", actor, details, now)
        return said


async def load_shipped(connection: db.Executor) -> None:
    """Inserts what is not there yet; a plan that was changed since is left alone."""
    catalogue = shipped()
    for usage_type in catalogue.usage_types:
        await store.insert_usage_type(
            connection, usage_type.usage_type, usage_type.decimal_places, usage_type.description
        )
    for plan in catalogue.plans:
        await store.insert_first_plan(
            connection,
            plan,
            Decimal(plan.base_fee),
            msgspec.json.encode(plan.entitlements).decode(),
            msgspec.json.encode(plan.prices).decode(),
        )
