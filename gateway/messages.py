"""Request and response types. The OpenAPI document is generated from them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from gateway.problems import Kind, Problem
from gateway.wrong_body import say
from ledger.domain.plan import Enforcement, Scope

BATCH_RECORDS = 1000  # records in one batch request

T = TypeVar("T", bound=msgspec.Struct)


class Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A body: unknown fields are errors, so that a misspelt one is not silently ignored."""


class Response(msgspec.Struct, kw_only=True):
    """An answer; quantities are JSON numbers, money is strings."""


UserId = Annotated[str, msgspec.Meta(description="UUID of the user", min_length=1, max_length=64)]
OrganizationId = Annotated[
    str, msgspec.Meta(description="UUID of the organisation", min_length=1, max_length=64)
]
UsageType = Annotated[
    str, msgspec.Meta(description="Name of a usage type", pattern="^[a-z][a-z0-9_]{0,49}$")
]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]
Metadata = Annotated[
    dict[str, str],
    msgspec.Meta(description="Ids and short tokens under known keys; nothing about a patient"),
]
# Kept raw: a JSON parser would turn it into a float, or into a Decimal that takes minutes.
Quantity = msgspec.Raw


class UsageRequest(Request):
    """One unit of work to record."""

    user_id: UserId
    usage_type: UsageType
    quantity: Quantity
    organization_id: OrganizationId | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    idempotency_key: str | UnsetType | None = UNSET
    occurred_at: Instant | UnsetType | None = UNSET


class BatchRequest(Request):
    records: list[msgspec.Raw]


class CheckRequest(Request):
    """A question: would this quantity be admitted now?"""

    user_id: UserId
    usage_type: UsageType
    quantity: Quantity
    organization_id: OrganizationId | UnsetType | None = UNSET


class BoundLimit(Response):
    """The limit that bound, or the tightest that applies."""

    scope: Scope
    usage_type: str
    window: str
    limit: Decimal


class UsageAnswer(Response):
    usage_id: UUID
    recorded_at: datetime
    quota_remaining: Decimal | None
    quota_exceeded: bool


class BatchResult(Response, omit_defaults=True):
    """The answer to one record of a batch: as `POST /usage` would give it, or a problem."""

    status: int
    usage_id: UUID | UnsetType = UNSET
    recorded_at: datetime | UnsetType = UNSET
    quota_remaining: Decimal | UnsetType | None = UNSET
    quota_exceeded: bool | UnsetType = UNSET
    replayed: bool = False


class BatchAnswer(Response):
    results: list[Any]  # BatchResult or ProblemDocument, in the order of the records
    accepted: int
    rejected: int


class CheckAnswer(Response):
    allowed: bool
    quota_remaining: Decimal | None
    limit: BoundLimit | None


class PeriodAnswer(Response):
    start: datetime
    end: datetime


class QuotaEntry(Response):
    usage_type: str
    scope: Scope
    limit: Decimal | None
    rollover: Decimal  # how much of it was left over of the last period
    used: Decimal
    held: Decimal
    remaining: Decimal | None
    overage: Decimal
    enforcement: Enforcement
    exceeded: bool
    resets_at: datetime


class QuotaAnswer(Response):
    user_id: UUID
    organization_id: UUID | None
    plan_tier: str
    period: PeriodAnswer
    quotas: list[QuotaEntry]


class UsageRecordAnswer(Response):
    usage_id: UUID
    user_id: UUID
    organization_id: UUID | None
    usage_type: str
    quantity: Decimal
    recorded_at: datetime
    occurred_at: datetime
    billing_period: str
    subscription_id: UUID | None
    plan_tier: str
    plan_version: int
    used_after: Decimal | None
    pool_used_after: Decimal | None
    quota_remaining: Decimal | None
    quota_exceeded: bool
    metadata: dict[str, str] | None
    idempotency_key: str | None
    recorded_by: str
    reversal_of: UUID | None


class UsageList(Response):
    data: list[UsageRecordAnswer]
    has_more: bool


class UsageQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Query parameters of the usage list."""

    user_id: str | None = None
    organization_id: str | None = None
    usage_type: UsageType | None = None
    from_: Instant | None = msgspec.field(default=None, name="from")
    to: Instant | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50
    starting_after: str | None = None


class AccountQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Selects the account of a user who belongs to an organisation."""

    organization_id: str | None = None


class ProblemDocument(Response, omit_defaults=True):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    limit: BoundLimit | None = None
    quota_remaining: Decimal | None = None
    quota_exceeded: bool | None = None
    outcome: Literal["unknown", "not_recorded"] | None = None
    retry_after: int | None = None


encoder = msgspec.json.Encoder(decimal_format="number")
usage_decoder = msgspec.json.Decoder(UsageRequest)
batch_decoder = msgspec.json.Decoder(BatchRequest)
check_decoder = msgspec.json.Decoder(CheckRequest)

# Every string, and whether a colon makes it a key. Strings must be matched whole, or a quote
# inside one would shift the rest.
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?')


def decode(decoder: msgspec.json.Decoder[T], body: bytes, kind: Kind = Kind.INVALID_REQUEST) -> T:
    """The typed body, or a problem that names the place but not the value. A key given twice is
    refused: which of the two was meant, a proxy and we could read differently."""
    try:
        value = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Problem(kind, say(str(error), decoder.type, "the body")) from None
    except msgspec.DecodeError:
        said = "not valid JSON" if body else "empty; a JSON object is needed"
        raise Problem(kind, f"the body is {said}") from None
    except RecursionError:
        raise Problem(kind, "the body is nested too deeply") from None
    except UnicodeDecodeError:
        raise Problem(kind, "the body is not UTF-8") from None
    given = msgspec.structs.astuple(value)
    keys = len(given) - given.count(UNSET)
    # No more colons than keys, but for those of raw parts: none can be there twice. Else strings,
    # and what is within them, must be told apart.
    colons = body.count(b":")
    if colons not in (keys, keys + _colons(given)) and _named(body) != keys + _nested(given):
        raise Problem(kind, "the body names a field twice")
    return value


def _named(raw: bytes) -> int:
    """How many keys the text has, those of nested objects included."""
    found = _STRINGS.findall(raw)
    return len(found) - found.count(b"")


def _colons(fields: Iterable[Any]) -> int:
    """How many colons are in the raw parts of a decoded document."""
    colons = 0
    for field in fields:
        if type(field) is msgspec.Raw:
            colons += bytes(field).count(b":")
        elif type(field) is list:
            colons += _colons(field)
    return colons


def _nested(fields: Iterable[Any]) -> int:
    """How many keys are within the fields of a decoded document; raw parts are counted as they
    stand, because they are decoded, and looked at, by themselves."""
    keys = 0
    for field in fields:
        if type(field) is dict:
            keys += len(field)
        elif type(field) is list:
            keys += _nested(field)
        elif isinstance(field, msgspec.Struct):
            within = msgspec.structs.astuple(field)
            keys += len(within) - within.count(UNSET) + _nested(within)
        elif type(field) is msgspec.Raw:
            keys += _named(bytes(field))
    return keys


def query(kind: type[T], params: Any) -> T:
    """Typed query parameters; one given twice is an error."""
    found = dict(params)
    if len(found) != len(params):
        raise Problem(Kind.INVALID_REQUEST, "a query parameter is given twice")
    try:
        return msgspec.convert(found, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Problem(Kind.INVALID_REQUEST, say(str(error), kind, "the query")) from None


def utc(instant: datetime | None, name: str) -> datetime | None:
    """In UTC; a time zone can carry the first and last day of the calendar out of it."""
    try:
        return None if instant is None else instant.astimezone(UTC)
    except OverflowError:
        raise Problem(Kind.INVALID_REQUEST, f"{name} is out of range") from None
