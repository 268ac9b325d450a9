"""Request and response types of invoices."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from gateway.messages import PeriodAnswer, Request, Response, UsageRecordAnswer
from gateway.subscription_messages import Amount, LineAnswer
from ledger.domain.payment import InvoiceStatus
from ledger.domain.plan import DecimalText
from ledger.domain.text import Text

Reason = Annotated[Text, msgspec.Meta(description="For the audit trail; name no patient")]
Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class InvoiceQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    organization_id: str | None = None
    user_id: str | None = None
    status: InvoiceStatus | None = None
    number: str | None = None
    limit: Limit = 50
    starting_after: UUID | None = None


class PageQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    limit: Limit = 50
    starting_after: UUID | None = None


class InvoiceLineAnswer(LineAnswer):
    """`GET /invoices/{id}/lines/{line_id}/usage` has the records behind it."""

    line_id: UUID


class PurgedMonth(Response):
    """Records that are kept no more; the archive has them."""

    month: str
    archive: str


class LineUsageList(Response):
    """`purged`: months of which records of this line are not here any more, if there are any."""

    data: list[UsageRecordAnswer]
    has_more: bool
    purged: list[PurgedMonth] | UnsetType = UNSET


class InvoiceAnswer(Response):
    """`number` is null for one that nobody is sent: nothing is to be paid, or it is parked."""

    invoice_id: UUID
    number: str | None
    subscription_id: UUID
    user_id: UUID
    organization_id: UUID | None
    period: PeriodAnswer
    currency: str
    status: InvoiceStatus
    lines: list[InvoiceLineAnswer]
    subtotal: Amount
    total: Amount
    tax: Amount
    amount_paid: Amount
    credited: Amount
    issued_at: datetime | None
    due_at: datetime | None
    parked: str | None
    stripe_invoice_id: str | None


class ReasonRequest(Request):
    reason: Reason


class CreditRequest(Request):
    amount: DecimalText
    reason: Reason


class InvoiceList(Response):
    data: list[InvoiceAnswer]
    has_more: bool


class UpcomingAnswer(Response):
    """What the running period comes to so far; the base fee of the next is not in it."""

    preview: Literal[True]
    subscription_id: UUID
    period: PeriodAnswer
    currency: str
    lines: list[LineAnswer]
    subtotal: Amount
    total: Amount


reason_decoder = msgspec.json.Decoder(ReasonRequest)
credit_decoder = msgspec.json.Decoder(CreditRequest)
