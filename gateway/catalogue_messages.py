"""Request and response types of plans and usage types."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from gateway.messages import Request, Response
from gateway.subscription_messages import Amount
from ledger.domain.plan import Entitlement, Plan, Price
from ledger.domain.plan_change import When
from ledger.domain.text import END

Version = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class PlanAnswer(Response, omit_defaults=True):
    """A version of a plan; money and quantities are exact decimals in strings."""

    tier: str
    version: int
    name: str
    currency: str
    interval: Literal["month", "year"]
    base_fee: str
    trial_days: int
    premium: bool
    entitlements: tuple[Entitlement, ...]
    prices: tuple[Price, ...]


class PlanQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An older version, or one customer's own."""

    version: Version | None = None


class PlanList(Response):
    data: list[PlanAnswer]


class UsageTypeRequest(Request):
    decimal_places: Annotated[int, msgspec.Meta(ge=0, le=6)]
    description: (
        Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]*" + END, max_length=500)]
        | UnsetType
    ) = UNSET


class UsageTypeAnswer(Response):
    usage_type: str
    decimal_places: int
    description: str


class UsageTypeList(Response):
    data: list[UsageTypeAnswer]


class MigrationRequest(Request):
    """Which subscriptions of a plan get which version: those on any older one the newest, at the
    end of their period, unless said."""

    from_version: Version | UnsetType | None = UNSET
    to_version: Version | UnsetType | None = UNSET
    when: When | UnsetType | None = UNSET
    preview: bool | UnsetType = UNSET


class MigrationAnswer(Response):
    """How far a migration has come. `pending` are to change when their period ends; `total` is what
    the lines of the changes come to; with `preview` nothing has happened."""

    migration_id: UUID
    plan_tier: str
    from_version: int | None
    to_version: int
    when: When
    preview: bool
    status: Literal["running", "done"]
    changed: int
    pending: int
    skipped: dict[str, int]  # by reason
    currency: str
    total: Amount
    actor: str
    created_at: datetime
    done_at: datetime | None


migration_decoder = msgspec.json.Decoder(MigrationRequest)
plan_decoder = msgspec.json.Decoder(Plan)
usage_type_decoder = msgspec.json.Decoder(UsageTypeRequest)
