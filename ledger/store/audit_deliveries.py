"""How far the audit service has each chain, and what it is sent next."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import msgspec

from ledger.db import Executor
from ledger.store.queries import QUERIES


class Claim(NamedTuple):
    """A chain that is this worker's for a while; `attempts` with this one."""

    chain: str
    delivered: int
    attempts: int


class UsageEvent(NamedTuple):
    position: int
    usage_id: UUID
    user_id: UUID
    organization_id: UUID | None
    usage_type: str
    quantity: Decimal
    recorded_at: datetime
    recorded_by: str


class State(msgspec.Struct, frozen=True):
    """What the audit service lacks, and for how long it has not taken anything of a chain."""

    waiting: int
    failing_s: int


async def begin(db: Executor) -> None:
    """From now on every chain is delivered, from its beginning."""
    await db.execute(QUERIES["begin_deliveries"])


async def claim(db: Executor, lease_s: int) -> Claim | None:
    row = await db.fetchrow(QUERIES["claim_delivery"], lease_s)
    return None if row is None else Claim(*row)


async def delivered(db: Executor, chain: str, through: int) -> None:
    await db.execute(QUERIES["note_delivered"], chain, through)


async def failed(db: Executor, chain: str, again_in_s: int, error: str) -> None:
    await db.execute(QUERIES["note_undelivered"], chain, again_in_s, error)


async def usage_events(db: Executor, partition: int, after: int, most: int) -> list[UsageEvent]:
    rows = await db.fetch(QUERIES["usage_events"], partition, after, most)
    return [UsageEvent(*row) for row in rows]


async def purged_through(db: Executor, partition: int, after: int, most: int) -> int | None:
    """The last of so many places after one, when the records of all were purged."""
    found: int | None = await db.fetchval(QUERIES["purged_through"], partition, after, most)
    return found


async def state(db: Executor) -> State:
    return State(**dict(await db.fetchrow(QUERIES["delivery_state"])))
