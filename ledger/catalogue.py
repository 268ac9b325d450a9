"""The shipped catalogue: usage types and plans, as data."""

from __future__ import annotations

from decimal import Decimal
from importlib.resources import files
from typing import Annotated

import msgspec

from ledger import db, store
from ledger.domain.plan import Name, Plan


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
