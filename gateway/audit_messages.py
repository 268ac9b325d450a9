"""Request and response types of the audit trail."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec

from gateway.invoice_messages import Limit
from gateway.messages import Instant, Response
from ledger.domain.text import END

Chain = Annotated[str, msgspec.Meta(pattern=r"^(control|usage:[0-9]{1,4})" + END)]
Kind = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z_]{0,99}" + END)]
Hashed = Annotated[str, msgspec.Meta(description="RFC 3339 in UTC, to the microsecond: as hashed")]
Actor = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class AuditEventQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    event_type: Kind | None = None
    actor: Actor | None = None
    user_id: str | None = None
    organization_id: str | None = None
    from_: Instant | None = msgspec.field(default=None, name="from")
    to: Instant | None = None
    limit: Limit = 50
    starting_after: UUID | None = None


class AuditEventAnswer(Response):
    """`sequence`, `version`, `previous` and `hash` are null until the event is sealed; hashes in
    hexadecimal digits."""

    event_id: UUID
    event_type: str
    actor: str
    user_id: UUID | None
    organization_id: UUID | None
    occurred_at: Hashed
    noted_at: Hashed
    details: msgspec.Raw
    chain: str
    sequence: int | None
    version: int | None
    previous: str | None
    hash: str | None


class AuditEventList(Response):
    data: list[AuditEventAnswer]
    has_more: bool


class VerifyQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    chain: Chain | None = None
    limit: Annotated[
        int, msgspec.Meta(ge=1, le=10_000, description="Rows of each chain, the newest")
    ] = 1000


class ChainAnswer(Response):
    """Places that were looked at; `whole`: from the first of all."""

    chain: str
    checked_from: int
    checked_through: int
    rows: int
    whole: bool
    hash: str


class FindingAnswer(Response):
    """What does not fit; `id` of the event or the usage record, null where it is gone."""

    chain: str
    sequence: int | None
    id: str | None
    what: str


class VerifyAnswer(Response):
    intact: bool
    chains: list[ChainAnswer]
    findings: list[FindingAnswer]
