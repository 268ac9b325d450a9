"""Request and response types of plans and usage types."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from gateway.messages import Request, Response
from ledger.domain.plan import Entitlement, Plan, Price


class PlanAnswer(Response, omit_defaults=True):
    """The newest version of a plan; money and quantities are exact decimals in strings."""

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


class PlanList(Response):
    data: list[PlanAnswer]


class UsageTypeRequest(Request):
    decimal_places: Annotated[int, msgspec.Meta(ge=0, le=6)]
    description: Annotated[str, msgspec.Meta(max_length=500)] | UnsetType = UNSET


class UsageTypeAnswer(Response):
    usage_type: str
    decimal_places: int
    description: str


class UsageTypeList(Response):
    data: list[UsageTypeAnswer]


plan_decoder = msgspec.json.Decoder(Plan)
usage_type_decoder = msgspec.json.Decoder(UsageTypeRequest)
