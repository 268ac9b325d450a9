"""Describes an organisation: row and audit event in one transaction."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from ledger import store
from ledger.db import Executor, Pool
from ledger.domain.organization import Organization, changed, unprotects
from ledger.store.organizations import Stored


class StaleOrganization(Exception):
    """It has changed since the version that the caller saw."""


class Unprotected(Exception):
    """The change would lift a legal hold or have records kept for less long."""


async def put(
    pool: Pool,
    organization_id: UUID,
    organization: Organization,
    *,
    actor: str,
    now: datetime,
    if_version: int | None,
    may_unprotect: bool,
) -> tuple[Stored, bool]:
    """What is stored then, and whether it is new. The same again changes nothing. Raises
    `StaleOrganization`, and `Unprotected` for who may not do that."""
    async with pool.acquire() as db, db.transaction():
        await store.organizations.lock(db, organization_id)
        old = await store.organizations.find(db, organization_id)
        if if_version not in (None, old.version if old else 0):
            raise StaleOrganization
        before = old.organization if old else None
        if old and before == organization:
            return old, False
        if before and unprotects(before, organization) and not may_unprotect:
            raise Unprotected
        made = await store.organizations.put(db, organization_id, organization, now)
        await _audit(db, before, made, actor, now)
        return made, old is None


async def _audit(
    db: Executor, before: Organization | None, made: Stored, actor: str, now: datetime
) -> None:
    """What changed by name; by value only what records are protected by."""
    after = made.organization
    details = {
        "version": made.version,
        "changed": changed(before, after),
        "baa": after.baa,
        "retention_class": after.retention_class,
        "legal_hold": after.legal_hold,
        "legal_hold_reason": after.legal_hold_reason,
    }
    kind = "organization_changed" if before else "organization_created"
    await store.insert_audit_event(
        db, kind, actor, details, now, organization_id=made.organization_id
    )


async def timezone_of(db: Executor, organization_id: UUID | None) -> str:
    """The time zone of a subscription that begins for it without saying one."""
    found = organization_id and await store.organizations.find(db, organization_id)
    return found.organization.timezone if found else "UTC"
