"""What a quota is built from: subscriptions and running totals."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from ledger.db import Executor
from ledger.store.queries import QUERIES


async def organization_of_user(db: Executor, user_id: UUID) -> UUID | None:
    found: UUID | None = await db.fetchval(QUERIES["organization_of_user"], user_id)
    return found


async def terms_versions(
    db: Executor, user_id: UUID | None, organization_id: UUID | None
) -> tuple[int, int]:
    """Of the user's own and of the organisation's subscription; each grows with every change."""
    row = await db.fetchrow(QUERIES["terms_versions"], user_id, organization_id)
    return row["own"], row["of_organization"]


async def note_organization_user(db: Executor, user_id: UUID, organization_id: UUID) -> None:
    """That a quota of this user in this organisation may be loaded from now on."""
    await db.execute(QUERIES["note_organization_user"], user_id, organization_id)


async def organizations_of_user(db: Executor, user_id: UUID) -> list[UUID]:
    """In which a quota of this user may ever have been loaded."""
    rows = await db.fetch(QUERIES["organizations_of_user"], user_id)
    return [row["organization_id"] for row in rows]


async def totals(db: Executor, subject: str, quota_period: datetime) -> dict[str, int]:
    """Units by usage type that count against a subject in the period."""
    rows = await db.fetch(QUERIES["totals"], subject, quota_period)
    return {row["usage_type"]: row["units"] for row in rows}
