"""What comes back. Every quantity is an exact Decimal, every time an aware UTC datetime.

Fields that a newer service adds are ignored. The readers raise KeyError, TypeError or ValueError
for anything that is not such an answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recorded:
    """Usage that counts. `quota_remaining` is what the tightest limit still allows (None:
    unlimited), `quota_exceeded` that a soft limit is passed, `replayed` that the key was recorded
    before and this is its old answer."""

    usage_id: UUID
    recorded_at: datetime
    quota_remaining: Decimal | None
    quota_exceeded: bool
    replayed: bool

    @classmethod
    def read(cls, said: Document, replayed: bool) -> Recorded:
        return cls(
            usage_id=UUID(said["usage_id"]),
            recorded_at=datetime.fromisoformat(said["recorded_at"]),
            quota_remaining=_optional(said["quota_remaining"]),
            quota_exceeded=_flag(said["quota_exceeded"]),
            replayed=replayed,
        )


@dataclass(frozen=True, slots=True)
class Corrected:
    """A correction, which is a record of its own. `net_quantity` is what is left of the record that
    it corrects. `quota_remaining` is None also where that record's quota is not in use now."""

    usage_id: UUID
    correction_of: UUID
    quantity: Decimal
    net_quantity: Decimal
    recorded_at: datetime
    quota_remaining: Decimal | None
    quota_exceeded: bool
    replayed: bool

    @classmethod
    def read(cls, said: Document, replayed: bool) -> Corrected:
        return cls(
            usage_id=UUID(said["usage_id"]),
            correction_of=UUID(said["correction_of"]),
            quantity=quantity(said["quantity"]),
            net_quantity=quantity(said["net_quantity"]),
            recorded_at=datetime.fromisoformat(said["recorded_at"]),
            quota_remaining=_optional(said["quota_remaining"]),
            quota_exceeded=_flag(said["quota_exceeded"]),
            replayed=replayed,
        )


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit: `scope` is ``user`` or ``organization``, `window` ``month``, ``year`` or, for a
    rate, such as ``60s``."""

    scope: str
    usage_type: str
    window: str
    limit: Decimal

    @classmethod
    def read(cls, said: Document) -> Limit:
        return cls(
            scope=said["scope"],
            usage_type=said["usage_type"],
            window=said["window"],
            limit=quantity(said["limit"]),
        )


@dataclass(frozen=True, slots=True)
class Checked:
    """Whether a quantity would be admitted now; true or false like `allowed`. `limit` is the one
    that binds or is tightest (None: unlimited)."""

    allowed: bool
    quota_remaining: Decimal | None
    limit: Limit | None

    def __bool__(self) -> bool:
        return self.allowed

    @classmethod
    def read(cls, said: Document) -> Checked:
        return cls(
            allowed=_flag(said["allowed"]),
            quota_remaining=_optional(said["quota_remaining"]),
            limit=None if said["limit"] is None else Limit.read(said["limit"]),
        )


@dataclass(frozen=True, slots=True)
class Quota:
    """One entitlement and what is used of it; `limit` and `remaining` are None when unlimited,
    `rollover` is how much of the limit was left over of the last period, `enforcement` is
    ``hard``, ``soft`` or ``shadow``."""

    usage_type: str
    scope: str
    limit: Decimal | None
    rollover: Decimal
    used: Decimal
    held: Decimal
    remaining: Decimal | None
    overage: Decimal
    enforcement: str
    exceeded: bool
    resets_at: datetime

    @classmethod
    def read(cls, said: Document) -> Quota:
        return cls(
            usage_type=said["usage_type"],
            scope=said["scope"],
            limit=_optional(said["limit"]),
            rollover=quantity(said["rollover"]),
            used=quantity(said["used"]),
            held=quantity(said["held"]),
            remaining=_optional(said["remaining"]),
            overage=quantity(said["overage"]),
            enforcement=said["enforcement"],
            exceeded=_flag(said["exceeded"]),
            resets_at=datetime.fromisoformat(said["resets_at"]),
        )


@dataclass(frozen=True, slots=True)
class Quotas:
    """All quotas of a user in the period ``[start, end)``; iterates over them."""

    user_id: UUID
    organization_id: UUID | None
    plan_tier: str
    start: datetime
    end: datetime
    quotas: tuple[Quota, ...]

    def __iter__(self) -> Iterator[Quota]:
        return iter(self.quotas)

    def of(self, usage_type: str, scope: str = "user") -> Quota:
        """The quota of one usage type. Raises KeyError when the plan does not have it."""
        for one in self.quotas:
            if (one.usage_type, one.scope) == (usage_type, scope):
                return one
        raise KeyError(usage_type)

    @classmethod
    def read(cls, said: Document) -> Quotas:
        return cls(
            user_id=UUID(said["user_id"]),
            organization_id=_optional_id(said["organization_id"]),
            plan_tier=said["plan_tier"],
            start=datetime.fromisoformat(said["period"]["start"]),
            end=datetime.fromisoformat(said["period"]["end"]),
            quotas=tuple(Quota.read(one) for one in said["quotas"]),
        )


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """A row of the ledger. `quantity` is negative in a correction, whose `reversal_of` names the
    original; `billing_period` is the date at which the period began."""

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
    quota_remaining: Decimal | None
    quota_exceeded: bool
    metadata: Mapping[str, str]
    idempotency_key: str | None
    recorded_by: str
    reversal_of: UUID | None

    @classmethod
    def read(cls, said: Document) -> UsageRecord:
        return cls(
            usage_id=UUID(said["usage_id"]),
            user_id=UUID(said["user_id"]),
            organization_id=_optional_id(said["organization_id"]),
            usage_type=said["usage_type"],
            quantity=quantity(said["quantity"]),
            recorded_at=datetime.fromisoformat(said["recorded_at"]),
            occurred_at=datetime.fromisoformat(said["occurred_at"]),
            billing_period=said["billing_period"],
            subscription_id=_optional_id(said["subscription_id"]),
            plan_tier=said["plan_tier"],
            plan_version=int(said["plan_version"]),
            quota_remaining=_optional(said["quota_remaining"]),
            quota_exceeded=_flag(said["quota_exceeded"]),
            metadata=dict(said["metadata"] or {}),
            idempotency_key=said["idempotency_key"],
            recorded_by=said["recorded_by"],
            reversal_of=_optional_id(said["reversal_of"]),
        )


@dataclass(frozen=True, slots=True)
class UsagePage:
    """A part of a list, newest first."""

    data: tuple[UsageRecord, ...]
    has_more: bool

    @classmethod
    def read(cls, said: Document) -> UsagePage:
        return cls(tuple(UsageRecord.read(one) for one in said["data"]), _flag(said["has_more"]))


def quantity(number: object) -> Decimal:
    """The Decimal of a JSON number that was read as int or Decimal, never as float."""
    if isinstance(number, Decimal) or type(number) is int:
        return Decimal(number)
    raise TypeError("not a number")


def _optional(number: object) -> Decimal | None:
    return None if number is None else quantity(number)


def _optional_id(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


def _flag(said: object) -> bool:
    if isinstance(said, bool):
        return said
    raise TypeError("neither true nor false")
