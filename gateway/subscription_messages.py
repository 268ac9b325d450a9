"""Request and response types of subscriptions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from gateway.messages import Instant, OrganizationId, PeriodAnswer, Request, Response, UserId
from ledger.domain.line import LineKind
from ledger.domain.overrides import Overrides
from ledger.domain.plan import Name, Scope
from ledger.domain.plan_change import When
from ledger.domain.subscription import SubscriptionStatus

Amount = Annotated[str, msgspec.Meta(description="Exact decimal, with the currency's decimals")]
TrialDays = Annotated[int, msgspec.Meta(ge=0, le=366)]
Timezone = Annotated[str, msgspec.Meta(description="IANA name", min_length=1, max_length=64)]


class SubscriptionRequest(Request):
    """A subscription to begin; organisation subscriptions name their owner as `user_id`."""

    user_id: UserId
    plan_tier: Name
    organization_id: OrganizationId | UnsetType | None = UNSET
    scope: Scope | UnsetType = UNSET
    start: Instant | UnsetType | None = UNSET
    trial_days: TrialDays | UnsetType | None = UNSET
    timezone: Timezone | UnsetType | None = UNSET
    overrides: msgspec.Raw | UnsetType = UNSET


class PlanChangeRequest(Request):
    """`when`: an upgrade now, anything else at the period's end, unless said. `overrides`: what
    this customer's terms say otherwise than the plan."""

    plan_tier: Name
    when: When | UnsetType | None = UNSET
    overrides: msgspec.Raw | UnsetType = UNSET
    preview: bool | UnsetType = UNSET


class CancelRequest(Request):
    when: When | UnsetType | None = UNSET
    preview: bool | UnsetType = UNSET


class ActionRequest(Request):
    preview: bool | UnsetType = UNSET


class SubscriptionQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Which of a user's subscriptions."""

    scope: Scope = "user"
    organization_id: str | None = None


class HistoryQuery(SubscriptionQuery):
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50
    starting_after: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None = None


class SubscriptionListQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    organization_id: str | None = None
    status: SubscriptionStatus | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50
    starting_after: UUID | None = None


class PendingChangeAnswer(Response):
    plan_tier: str
    plan_version: int
    at: datetime


class SubscriptionAnswer(Response):
    subscription_id: UUID | None
    user_id: UUID
    organization_id: UUID | None
    scope: Scope
    plan_tier: str
    plan_version: int
    overridden: bool  # whether its terms are agreed with this customer alone
    status: SubscriptionStatus
    current_period: PeriodAnswer
    trial_end: datetime | None
    cancel_at: datetime | None
    pending_change: PendingChangeAnswer | None
    created_at: datetime | None
    updated_at: datetime | None


class SubscriptionList(Response):
    data: list[SubscriptionAnswer]
    has_more: bool


class LineAnswer(Response):
    """A line of an invoice; `amount` is negative in the customer's favour."""

    kind: LineKind
    usage_type: str | None
    description: str
    quantity: str | None
    unit_amount: str | None
    amount: Amount
    period: PeriodAnswer | None


class PreviewAnswer(Response):
    """What a change would come to: nothing has happened."""

    preview: Literal[True]
    subscription: SubscriptionAnswer
    currency: str
    lines: list[LineAnswer]
    total: Amount


class HistoryEntry(Response):
    """A subscription as it stood after a change; `version` is its ETag then."""

    version: int
    action: str
    actor: str
    occurred_at: datetime
    effective_at: datetime
    status: SubscriptionStatus
    plan_tier: str
    plan_version: int
    trial_end: datetime | None
    cancel_at: datetime | None
    pending_change: PendingChangeAnswer | None


class HistoryAnswer(Response):
    data: list[HistoryEntry]
    has_more: bool


overrides_decoder: msgspec.json.Decoder[Overrides | None] = msgspec.json.Decoder(Overrides | None)
create_decoder = msgspec.json.Decoder(SubscriptionRequest)
change_decoder = msgspec.json.Decoder(PlanChangeRequest)
cancel_decoder = msgspec.json.Decoder(CancelRequest)
action_decoder = msgspec.json.Decoder(ActionRequest)
