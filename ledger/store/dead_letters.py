"""Entries that could not be written, and what became of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Literal

import msgspec

from ledger.db import Executor
from ledger.store.queries import QUERIES

PAGE = 200  # entries are a few hundred bytes, unless a caller filled their metadata

Status = Literal["open", "retried", "discarded"]


class DeadLetter(msgspec.Struct, frozen=True):
    """An entry as it was in the stream, and why it is not a record. Subject, usage type and units
    are None where nothing counts it."""

    dead_letter_id: int
    partition: int
    stream_id: str
    subject: str | None
    usage_type: str | None
    units: int | None
    fields: dict[str, bytes]
    reason: str
    status: Status
    created_at: datetime


_entry = msgspec.json.Decoder(dict[str, str])


def _letter(row: dict[str, Any]) -> DeadLetter:
    entry = _entry.decode(row.pop("entry"))
    entry.pop("usage_id", None)  # an earlier build put it there, in words
    fields = {name: bytes.fromhex(value) for name, value in entry.items()}
    return DeadLetter(fields=fields, **row)


async def dead_letter(db: Executor, dead_letter_id: int) -> DeadLetter | None:
    row = await db.fetchrow(QUERIES["dead_letter"], dead_letter_id)
    return None if row is None else _letter(dict(row))


async def dead_letters(db: Executor, *, settled: bool) -> AsyncIterator[DeadLetter]:
    """Open ones, and those that are settled when asked for; newest first, a page in memory."""
    before: int | None = None
    while page := await db.fetch(QUERIES["dead_letters"], settled, before, PAGE):
        for row in page:
            yield _letter(dict(row))
        before = page[-1]["dead_letter_id"]


async def open_dead_letters(db: Executor) -> list[int]:
    """Their ids, oldest first."""
    rows = await db.fetch(QUERIES["open_dead_letters"])
    return [row["dead_letter_id"] for row in rows]


async def count_open_dead_letters(db: Executor) -> int:
    return int(await db.fetchval(QUERIES["count_open_dead_letters"]))


async def close_dead_letter(db: Executor, dead_letter_id: int, status: Status) -> None:
    await db.execute(QUERIES["close_dead_letter"], dead_letter_id, status)


async def explain_dead_letter(db: Executor, dead_letter_id: int, reason: str) -> None:
    """Replaces the reason by that of the latest try."""
    await db.execute(QUERIES["explain_dead_letter"], dead_letter_id, reason)
