"""The chain of audit events, and how far the audit service has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from ledger.db import Connection, Executor
from ledger.domain.audit import Event, Link
from ledger.store.queries import QUERIES

PAGE = 1000  # events in memory at once
_EVENT = Event.__struct_fields__


class ControlHead(NamedTuple):
    sequence: int
    head: bytes


class Stored(msgspec.Struct, frozen=True):
    """An event with its place; None until it is sealed."""

    event: Event
    link: Link | None


class Filter(msgspec.Struct, frozen=True):
    """Which events are listed; None: any."""

    event_type: str | None = None
    actor: str | None = None
    user_id: UUID | None = None
    organization_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None


class Restore(NamedTuple):
    at: datetime
    backup_created_at: datetime


class State(msgspec.Struct, frozen=True):
    """Events that are not sealed, since how long at most; how many are."""

    unsealed: int
    oldest_s: int
    sequence: int


async def head(db: Executor) -> ControlHead | None:
    """None when somebody removed it."""
    row = await db.fetchrow(QUERIES["control_head"])
    return None if row is None else ControlHead(*row)


async def lock_head(db: Executor) -> ControlHead | None:
    """The head, which nobody else moves until this transaction ends; None while another does."""
    row = await db.fetchrow(QUERIES["lock_control_head"])
    return None if row is None else ControlHead(*row)


async def set_head(db: Executor, link: Link) -> None:
    await db.execute(QUERIES["set_control_head"], link.sequence, link.hash)


async def chains(db: Executor) -> list[str]:
    return [row["chain"] for row in await db.fetch(QUERIES["chains"])]


async def unsealed(db: Executor, most: int) -> list[Event]:
    """In the order in which they are sealed."""
    return [_event(row) for row in await db.fetch(QUERIES["unsealed_events"], most)]


async def seal(db: Executor, sealed: Sequence[tuple[Event, Link]]) -> None:
    await db.execute(
        QUERIES["seal_events"],
        [event.event_id for event, _ in sealed],
        [link.sequence for _, link in sealed],
        [link.version for _, link in sealed],
        [link.previous for _, link in sealed],
        [link.hash for _, link in sealed],
    )


async def sealed(db: Connection, after: int, page: int = PAGE) -> AsyncIterator[tuple[Event, Link]]:
    """Those after a place, in the order of the chain; within a transaction."""
    async for row in db.cursor(QUERIES["sealed_events"], after, prefetch=page):
        yield _event(row), Link(row["sequence"], row["version"], row["previous"], row["hash"])


async def hash_at(db: Executor, sequence: int) -> bytes | None:
    found: bytes | None = await db.fetchval(QUERIES["event_hash_at"], sequence)
    return found


async def position(db: Executor, event_id: UUID) -> datetime | None:
    """Where an event is in the list; None when there is no such event."""
    found: datetime | None = await db.fetchval(QUERIES["event_position"], event_id)
    return found


async def page(
    db: Executor, which: Filter, before: tuple[datetime, UUID] | None, most: int
) -> list[Stored]:
    """Newest first, those before another."""
    rows = await db.fetch(
        QUERIES["list_events"], *msgspec.structs.astuple(which), *(before or (None, None)), most
    )
    return [_stored(row) for row in rows]


async def restores_since(db: Executor, at: datetime) -> list[Restore]:
    rows = await db.fetch(QUERIES["restores_since"], at)
    return [
        Restore(row["occurred_at"], datetime.fromisoformat(row["backup_created_at"]))
        for row in rows
    ]


async def state(db: Executor) -> State:
    return State(**dict(await db.fetchrow(QUERIES["audit_state"])))


def _event(row: Mapping[str, Any]) -> Event:
    return Event(*(row[name] for name in _EVENT))


def _stored(row: Mapping[str, Any]) -> Stored:
    if row["sequence"] is None:
        return Stored(_event(row), None)
    link = Link(row["sequence"], row["version"], row["previous"], row["hash"])
    return Stored(_event(row), link)
