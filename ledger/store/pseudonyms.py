"""Users who are named otherwise in what is exported."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from ledger.db import Executor
from ledger.store.queries import QUERIES


async def is_known(db: Executor, user_id: UUID) -> bool:
    """Whether the ledger has anything of a user."""
    return bool(await db.fetchval(QUERIES["is_user_known"], user_id))


async def has_live_subscription(db: Executor, user_id: UUID) -> bool:
    return bool(await db.fetchval(QUERIES["has_live_subscription"], user_id))


async def make(db: Executor, user_id: UUID, now: datetime) -> tuple[UUID, bool]:
    """A user's pseudonym, and whether it is new."""
    made: UUID | None = await db.fetchval(QUERIES["insert_pseudonym"], user_id, now)
    if made is not None:
        return made, True
    found: UUID = await db.fetchval(QUERIES["pseudonym"], user_id)
    return found, False


async def forget_memberships(db: Executor, user_id: UUID) -> int:
    """Of how many organisations it was known that the user is in them."""
    return int(await db.fetchval(QUERIES["forget_memberships"], user_id))
