"""Plan versions that subscriptions are brought up to."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.domain.plan import Scope
from ledger.domain.plan_change import When
from ledger.store.queries import QUERIES


class Asked(msgspec.Struct, frozen=True):
    """Which subscriptions of a tier (None: those on any older version) get which version, and
    when; with `preview` it is only counted what would come of it."""

    plan_tier: str
    from_version: int | None
    to_version: int
    moment: When
    preview: bool


class Progress(msgspec.Struct, frozen=True):
    """How far one has come. `total`: of the lines that the changes make."""

    migration_id: UUID
    asked: Asked
    changed: int
    pending: int
    skipped: dict[str, int]  # by reason
    total: Decimal
    currency: str
    actor: str
    created_at: datetime
    done_at: datetime | None


class Held(msgspec.Struct, frozen=True):
    """One that is being worked on, and the last subscription that it came to."""

    migration_id: UUID
    asked: Asked
    actor: str
    reached: UUID | None


class Candidate(msgspec.Struct, frozen=True):
    """A subscription that it comes to."""

    subscription_id: UUID
    scope: Scope
    user_id: UUID
    organization_id: UUID | None


async def insert(db: Executor, asked: Asked, actor: str, now: datetime) -> UUID | None:
    """Its id; None where the same is running."""
    args = msgspec.structs.astuple(asked)
    found: UUID | None = await db.fetchval(QUERIES["insert_plan_migration"], *args, actor, now)
    return found


async def running(db: Executor, asked: Asked) -> UUID | None:
    found: UUID | None = await db.fetchval(
        QUERIES["running_plan_migration"], *msgspec.structs.astuple(asked)
    )
    return found


async def progress(db: Executor, plan_tier: str, migration_id: UUID) -> Progress | None:
    row = await db.fetchrow(QUERIES["plan_migration"], plan_tier, migration_id)
    if row is None:
        return None
    found = dict(row)
    skipped = msgspec.json.decode(found.pop("skipped"), type=dict[str, int])
    asked = Asked(**{name: found[name] for name in Asked.__struct_fields__})
    named = {name: found[name] for name in Progress.__struct_fields__ if name in found}
    return Progress(**named, asked=asked, skipped=skipped)


async def unfinished(db: Executor) -> list[UUID]:
    """Oldest first."""
    return [row["migration_id"] for row in await db.fetch(QUERIES["open_plan_migrations"])]


async def hold(db: Executor, migration_id: UUID) -> Held | None:
    """It; None when it is done, or somebody else works on it."""
    row = await db.fetchrow(QUERIES["hold_plan_migration"], migration_id)
    if row is None:
        return None
    asked = Asked(**{name: row[name] for name in Asked.__struct_fields__})
    return Held(row["migration_id"], asked, row["actor"], row["reached"])


async def candidate(db: Executor, held: Held) -> Candidate | None:
    """The subscription that comes next; None after the last."""
    asked = held.asked
    row = await db.fetchrow(
        QUERIES["next_to_migrate"],
        asked.plan_tier, asked.from_version, asked.to_version, held.reached,
    )  # fmt: skip
    return None if row is None else Candidate(**dict(row))


async def note(
    db: Executor, held: Held, reached: UUID, changed: int, pending: int, total: Decimal
) -> None:
    """That it has come to a subscription, and what it made of it."""
    args = (held.migration_id, reached, changed, pending, total)
    await db.execute(QUERIES["note_migrated"], *args)


async def skip(db: Executor, held: Held, subscription_id: UUID, reason: str) -> None:
    await db.execute(QUERIES["insert_migration_skip"], held.migration_id, subscription_id, reason)


async def end(db: Executor, held: Held, now: datetime) -> None:
    await db.execute(QUERIES["end_plan_migration"], held.migration_id, now)
