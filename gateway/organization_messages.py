"""Request and response types of organisations."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from gateway.invoice_messages import Limit
from gateway.messages import Request, Response
from gateway.subscription_messages import Timezone
from ledger.domain.organization import BaaStatus, Contact, RetentionClass
from ledger.domain.text import END, Text

CENTERS = 1000  # cost centres of one organisation

Reason = Annotated[Text, msgspec.Meta(description="Of a legal hold; name no patient")]
Token = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}" + END)]
Email = Annotated[
    str, msgspec.Meta(pattern=r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+" + END, max_length=254)
]
Customer = Annotated[str, msgspec.Meta(pattern=r"^cus_[A-Za-z0-9]{1,64}" + END)]
Centers = Annotated[
    dict[Token, Token],
    msgspec.Meta(
        max_length=CENTERS,
        description="What usage says as cost_center or department, to the line it is reported as",
    ),
]


class BillingContact(Request):
    """Whom invoices are sent to."""

    name: Text
    email: Email


class OrganizationRequest(Request):
    """All that is to be known of an organisation: what is left out is not known any more."""

    name: Text
    timezone: Timezone | UnsetType = UNSET
    baa: BaaStatus | UnsetType = UNSET
    baa_signed_on: date | UnsetType | None = UNSET
    retention_class: RetentionClass | UnsetType = UNSET
    legal_hold: bool | UnsetType = UNSET
    legal_hold_reason: Reason | UnsetType | None = UNSET
    cost_centers: Centers | UnsetType = UNSET
    billing_contact: BillingContact | UnsetType | None = UNSET
    stripe_customer: Customer | UnsetType | None = UNSET


class OrganizationAnswer(Response):
    """`name`, `created_at` and `updated_at` are null of one that nobody described.
    `access_to_books_until`: null where the books need not be open (any more)."""

    organization_id: UUID
    name: str | None
    timezone: str
    baa: BaaStatus
    baa_signed_on: date | None
    retention_class: RetentionClass
    retention_years: int
    legal_hold: bool
    legal_hold_reason: str | None
    access_to_books_until: date | None
    cost_centers: dict[str, str]
    billing_contact: Contact | None
    stripe_customer: str | None
    created_at: datetime | None
    updated_at: datetime | None


class OrganizationList(Response):
    data: list[OrganizationAnswer]
    has_more: bool


class OrganizationListQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    limit: Limit = 50
    starting_after: UUID | None = None


organization_decoder = msgspec.json.Decoder(OrganizationRequest)
