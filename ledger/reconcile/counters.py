"""Counters in Redis against the ledger: totals, open dead letters and what is not drained yet.

Exact under traffic: a snapshot of the ledger and everything after its cursor, read up to the very
instant at which the counters are read (`lua/tally.lua`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence

import msgspec

from ledger import store
from ledger.db import Connection
from ledger.domain.usage import at_ms, count_of
from lua import keys
from lua.packing import unpack_state
from lua.scripts import Scripts

CHUNK = 200  # quotas compared at one instant: Redis serves nobody else meanwhile (a millisecond)
PAGE = 1000  # as many as the script reads itself: Redis serves nobody else meanwhile
BACKLOG = 10_000  # entries beyond which comparing would hold up the drain that lags
ATTEMPTS = 5  # each loses only to something newer: a recovery, a trim, a burst of entries
LOOKS = 3  # a difference must be seen so often: what is being put right meanwhile is none
LOOK_S = 0.2


class Difference(msgspec.Struct, frozen=True):
    """A counter that does not say what the ledger does; in units. `ledger` includes what is not
    drained yet."""

    subject: str
    usage_type: str
    starts: int  # ms
    redis: int | None  # None: no number
    ledger: int

    @property
    def what(self) -> str:
        return (
            f"{self.subject} {self.usage_type} since {at_ms(self.starts):%Y-%m-%d}: "
            f"Redis says {'nothing readable' if self.redis is None else f'{self.redis} units'}, "
            f"the ledger {self.ledger}"
        )


class NotCompared(Exception):
    """The counters could not be compared now; the message says why."""


class Counters:
    def __init__(self, connection: Connection, scripts: Scripts) -> None:
        self._connection = connection
        self._scripts = scripts
        self._tail: Tail | None = None  # as long as it is that of the cursor

    async def compare(
        self, partition: int, subjects: Sequence[str]
    ) -> AsyncIterator[tuple[int, list[Difference]]]:
        """How many counters of each chunk of subjects were compared, and those that still differ
        when looked at again. Raises `NotCompared`, or `Fenced`."""
        for at in range(0, len(subjects), CHUNK):
            chunk = subjects[at : at + CHUNK]
            compared, found = await self._at_one_instant(partition, chunk)
            for _ in range(LOOKS - 1):
                if not found:
                    break
                await asyncio.sleep(LOOK_S)
                again = sorted({one.subject for one in found})
                _, found = await self._at_one_instant(partition, again)
            yield compared, found

    async def _at_one_instant(
        self, partition: int, subjects: Sequence[str]
    ) -> tuple[int, list[Difference]]:
        names = [keys.quota_named(partition, subject) for subject in subjects]
        for attempt in range(ATTEMPTS):
            async with self._connection.transaction(isolation="repeatable_read", readonly=True):
                cursor = await store.cursor(self._connection, partition)
                counted = await store.counted(self._connection, subjects)
            tail = await self._tail_after(cursor, read_on=attempt > 0)
            tally = await self._scripts.tally(
                partition, names, epoch=cursor.epoch, cursor=cursor.last_id, through=tail.through
            )
            if tally is None:
                continue
            tail.add(tally.entries)
            compared, found = 0, []
            for subject, fields in zip(subjects, tally.quotas, strict=True):
                for usage_type, starts, used in _counts(fields):
                    compared += 1
                    expected = counted.get((subject, usage_type, at_ms(starts)), 0)
                    expected += tail.units.get((subject, usage_type, starts), 0)
                    if used != expected:
                        found.append(Difference(subject, usage_type, starts, used, expected))
            return compared, found
        newest = await self._scripts.read(partition, after=cursor.last_id, count=1)
        if keys.before(cursor.last_id, newest.floor):
            raise NotCompared("the database lacks usage that Redis no longer has: ./run accept-gap")
        raise NotCompared("its stream changes faster than it can be read")

    async def _tail_after(self, cursor: store.Cursor, *, read_on: bool) -> Tail:
        """What is not drained but for the newest, which the script reads. Read once as long as the
        cursor stands, and `read_on` when that became too long for the script."""
        tail = self._tail
        if tail is None or not tail.follows(cursor):
            self._tail = tail = Tail(cursor)
            read_on = True
        while read_on:
            if tail.entries >= BACKLOG:
                raise NotCompared(f"the ledger is more than {BACKLOG:,} entries behind")
            page = await self._scripts.read(cursor.partition, after=tail.through, count=PAGE)
            tail.add(page.entries)
            read_on = len(page.entries) == PAGE
        return tail


class Tail:
    """What is not drained, as far as it was read: how many `entries`, `through` which, and their
    units by subject, usage type and start of the quota's period."""

    def __init__(self, cursor: store.Cursor) -> None:
        self._after = (cursor.partition, cursor.replid, cursor.epoch, cursor.last_id)
        self.through = cursor.last_id
        self.entries = 0
        self.units: dict[tuple[str, str, int], int] = defaultdict(int)

    def follows(self, cursor: store.Cursor) -> bool:
        """Whether this is the tail of the cursor: entries are only ever added to a history."""
        return self._after == (cursor.partition, cursor.replid, cursor.epoch, cursor.last_id)

    def add(self, entries: Sequence[tuple[str, dict[str, bytes]]]) -> None:
        for entry_id, fields in entries:
            self.through, self.entries = entry_id, self.entries + 1
            count = count_of(fields)
            if count is None:
                continue  # a control entry, or one that counts nowhere
            periods = (count.quota_period, count.pool_period)
            for subject, starts in zip(keys.subjects_of(count.who), periods, strict=False):
                if starts is not None:
                    self.units[keys.subject_text(subject), count.usage_type, starts] += count.units


def _counts(fields: dict[str, bytes]) -> list[tuple[str, int, int | None]]:
    """Usage type, start of the period and used units of a quota hash that is in use."""
    if not fields:
        return []
    starts = unpack_state(fields["state"]).starts
    types = [name.partition(":")[2] for name in fields if name.startswith("rule:")]
    return [(one, starts, _number(fields.get(f"used:{one}", b"0"))) for one in types]


def _number(raw: bytes) -> int | None:
    try:
        return int(raw)
    except ValueError:
        return None
