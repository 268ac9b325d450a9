"""Organisations, as somebody described them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.domain.organization import Contact, Organization
from ledger.store.queries import QUERIES


class Stored(msgspec.Struct, frozen=True):
    """A row of `organizations`; `version` grows with every change."""

    organization_id: UUID
    version: int
    organization: Organization
    created_at: datetime
    updated_at: datetime


async def find(db: Executor, organization_id: UUID) -> Stored | None:
    row = await db.fetchrow(QUERIES["organization"], organization_id)
    return None if row is None else _stored(row)


async def lock(db: Executor, organization_id: UUID) -> None:
    """Nobody else describes it until this transaction ends."""
    await db.execute(QUERIES["lock_organization"], organization_id)


async def put(
    db: Executor, organization_id: UUID, organization: Organization, now: datetime
) -> Stored:
    """Makes it, or replaces all that is said of it. Only while holding its lock."""
    contact = organization.billing_contact
    row = await db.fetchrow(
        QUERIES["put_organization"],
        organization_id,
        organization.name,
        organization.timezone,
        organization.baa,
        organization.baa_signed_on,
        organization.retention_class,
        organization.legal_hold,
        organization.legal_hold_reason,
        msgspec.json.encode(organization.cost_centers).decode(),
        contact and contact.name,
        contact and contact.email,
        organization.stripe_customer,
        now,
    )
    return _stored(row)


async def page(db: Executor, before: Stored | None, most: int) -> list[Stored]:
    """Newest first, those made before another."""
    at, organization_id = (before.created_at, before.organization_id) if before else (None, None)
    rows = await db.fetch(QUERIES["list_organizations"], at, organization_id, most)
    return [_stored(row) for row in rows]


async def is_known(db: Executor, organization_id: UUID) -> bool:
    """Whether it ever had a subscription, usage, or a user whose quota was loaded for it."""
    return bool(await db.fetchval(QUERIES["is_organization_known"], organization_id))


def _stored(row: Mapping[str, Any]) -> Stored:
    name, email = row["billing_contact_name"], row["billing_contact_email"]
    organization = Organization(
        name=row["name"],
        timezone=row["timezone"],
        baa=row["baa"],
        baa_signed_on=row["baa_signed_on"],
        retention_class=row["retention_class"],
        legal_hold_reason=row["legal_hold_reason"],
        cost_centers=msgspec.json.decode(row["cost_centers"]),
        billing_contact=None if name is None else Contact(name, email),
        stripe_customer=row["stripe_customer"],
    )
    return Stored(
        row["organization_id"], row["version"], organization, row["created_at"], row["updated_at"]
    )
