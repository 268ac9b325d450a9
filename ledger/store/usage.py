"""Reading what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.store.queries import QUERIES


class PastAnswer(msgspec.Struct, frozen=True):
    """What was answered for a usage id, from its row."""

    fingerprint: bytes
    recorded_at: datetime
    remaining: int | None
    exceeded: bool


async def answers(db: Executor, usage_ids: Sequence[UUID]) -> dict[UUID, PastAnswer]:
    rows = await db.fetch(QUERIES["answers"], usage_ids)
    return {
        row["usage_id"]: PastAnswer(
            row["fingerprint"],
            row["recorded_at"].astimezone(UTC),
            row["remaining"],
            row["quota_exceeded"],
        )
        for row in rows
    }


async def usage_position(
    db: Executor, usage_id: UUID, user_id: UUID | None, organization_ids: Sequence[UUID] | None
) -> tuple[datetime, UUID] | None:
    """Where a record stands in a list; None when it is not in that list."""
    row = await db.fetchrow(QUERIES["usage_position"], usage_id, user_id, organization_ids)
    return None if row is None else (row["recorded_at"], row["usage_id"])


async def list_usage(
    db: Executor,
    *,
    user_id: UUID | None,
    organization_ids: Sequence[UUID] | None,
    usage_type: str | None,
    since: datetime | None,
    until: datetime | None,
    after: tuple[datetime, UUID] | None,
    count: int,
) -> list[dict[str, Any]]:
    """Of the user, or of all users of the organisations when none is named."""
    after_time, after_id = after if after else (None, None)
    name = "list_usage_of_organizations" if user_id is None else "list_usage_of_user"
    rows = await db.fetch(
        QUERIES[name],
        user_id,
        organization_ids,
        usage_type,
        since,
        until,
        after_time,
        after_id,
        count,
    )
    return [dict(row) for row in rows]
