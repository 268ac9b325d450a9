"""The chain of a partition's usage records, recomputed from rows and seals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from heapq import merge
from operator import itemgetter
from typing import NamedTuple

from ledger import store
from ledger.audit.events import Checked
from ledger.db import Connection
from ledger.domain.seal import (
    CANONICAL,
    FIRST_HEAD,
    GONE,
    MARK_BYTES,
    chain_of,
    mark,
    seal,
    seal_left,
)
from ledger.domain.usage import UsageRecord
from ledger.store.seals import Head, Seal
from lua.keys import uuid_text

# More than any batch has: whoever edits a seal must not make verify hold a whole table.
MOST_RECORDS = 100_000
AT_ONCE = 200  # records hashed while nothing else runs: some milliseconds
_PURGED = "is a record that was purged"
_LOWEST = -(2**63)  # rows of before the first place are no chain's: told of as well


class _Row(NamedTuple):
    position: int
    record: UsageRecord


_Place = tuple[int, _Row | None]  # None: of a record that a purge took


class _Rows:
    """A partition's records in order, with a look at the next one."""

    def __init__(self, rows: AsyncIterator[tuple[int, UsageRecord]]) -> None:
        self._rows = rows
        self._next: _Row | None = None

    async def before(self, position: int) -> AsyncIterator[_Row]:
        """Takes those of places before one."""
        while (row := await self._look()) is not None and row.position < position:
            self._next = None
            yield row

    async def _look(self) -> _Row | None:
        if self._next is None and (found := await anext(self._rows, None)) is not None:
            self._next = _Row(*found)
        return self._next


async def check(
    connection: Connection,
    partition: int,
    newest: Head,
    decimals: Mapping[str, int],
    after: Head = Head(0, FIRST_HEAD),  # noqa: B008 - a constant
    through: int | None = None,
    page: int = store.seals.PAGE,
) -> Checked:
    """Recomputes the seals after a place that is known to be whole, up to the one that covers
    another, or all; then the last is compared with the head that the cursor has. Within a
    transaction."""
    checked = Checked(chain_of(partition), *after)
    begin = after.position or _LOWEST
    rows = _Rows(store.seals.sealed_records(connection, partition, begin, decimals, page))
    async for one in store.seals.seals(connection, partition, after.position):
        if through is not None and checked.at >= through:
            return checked
        await _check_seal(checked, partition, one, rows)
    async for row in rows.before(2**63):
        checked.findings.add(row.position, "is covered by no seal", _id(row))
    found = checked.findings
    found.missing(checked.at + 1, newest.position, "no seal covers this place")
    if newest.position < checked.at:
        found.add(checked.at, f"comes after the head that the cursor has, at {newest.position}")
    elif newest.position == checked.at and newest.head != checked.head:
        found.add(checked.at, "is not the seal that the cursor's head was made of")
    return checked


async def _check_seal(checked: Checked, partition: int, one: Seal, rows: _Rows) -> None:
    found, first, last = checked.findings, one.first_position, one.last_position
    if first <= checked.at or not 1 <= last - first + 1 == one.records <= MOST_RECORDS:
        found.add(last, f"its seal says that it covers {one.records} records from {first} on")
        first = checked.at + 1
    async for row in rows.before(first):
        found.add(row.position, "is covered by no seal", _id(row))
    if first > checked.at + 1:
        found.missing(checked.at + 1, first - 1, "no seal covers this place")
    elif one.previous != checked.head:
        found.add(last, "its seal does not follow the one before it")
    covered: list[_Row] = []
    async for row in rows.before(last + 1):
        if len(covered) <= MOST_RECORDS:
            covered.append(row)
    if len(covered) > AT_ONCE:  # others may wait for this thread
        await asyncio.to_thread(_check_rows, checked, partition, one, covered)
    else:
        _check_rows(checked, partition, one, covered)
    checked.at, checked.head = last, one.head
    checked.rows += len(covered)


def _check_rows(checked: Checked, partition: int, one: Seal, covered: list[_Row]) -> None:
    """Whether these are the records that were sealed, or that a purge left of them; names each
    that is not."""
    found = checked.findings
    if one.version not in CANONICAL:
        found.add(one.last_position, f"its seal says that it is of version {one.version}")
        return
    if _fits(partition, one, covered):
        return
    before = len(found.all)
    _name_rows(checked, one, covered)
    if len(found.all) == before:
        which = (
            "its seal was"
            if one.marks
            else f"one of the records from {one.first_position} on, or its seal, was"
        )
        found.add(one.last_position, f"{which} changed since they were sealed")


def _fits(partition: int, one: Seal, covered: list[_Row]) -> bool:
    first, last, version = one.first_position, one.last_position, one.version
    left = {row.position: row.record for row in covered}
    expected = one.records if one.kept is None else one.kept
    if not len(left) == len(covered) == expected:
        return False
    if one.kept is None:
        if list(left) != list(range(first, first + len(left))):
            return False
        records = list(left.values())
        made = seal(one.previous, records, partition=partition, first=first, version=version)
        return made == (one.head, one.marks)
    if not left:
        return one.kept_head is None
    if last - first >= MOST_RECORDS:
        return False
    made = seal_left(one.head, left, partition=partition, first=first, last=last, version=version)
    # Before migration 0018 a purge made no marks.
    return made.head == one.kept_head and one.marks in (b"", made.marks)


def _name_rows(checked: Checked, one: Seal, covered: list[_Row]) -> None:
    """By the marks; a seal of version 1 has none before a purge, and can say of a record only that
    it is gone."""
    found, first, expected = checked.findings, one.first_position, one.first_position
    if one.kept == 0:
        for row in covered:
            found.add(row.position, _PURGED, _id(row))
        return
    if one.kept is not None and not one.marks:
        if (lost := one.kept - len(covered)) > 0:
            found.add(one.last_position, f"of the records that a purge left are missing: {lost}")
        return
    marks = [one.marks[at : at + MARK_BYTES] for at in range(0, len(one.marks), MARK_BYTES)]
    sealed = dict(enumerate(marks, first))
    places = {said: place for place, said in sealed.items()}
    gone: list[_Place] = [(place, None) for place, said in sealed.items() if said == GONE]
    there: list[_Place] = [(row.position, row) for row in covered]
    for place, one_row in merge(gone, there, key=itemgetter(0)):  # what is gone before what is not
        known = sealed.get(place)
        if one_row is not None and place < expected:
            what = _PURGED if known == GONE else "there is more than one record at this place"
            found.add(place, what, _id(one_row))
            continue
        found.missing(expected, place - 1, "the record is missing")
        expected = place + 1
        if one_row is None or known is None:
            continue
        said = mark(CANONICAL[one.version](one_row.record))
        if said != known:
            was = places.get(said)
            moved = "" if was is None else f": it was sealed at {was}"
            found.add(place, f"is not the record that was sealed{moved}", _id(one_row))
    found.missing(expected, first + one.records - 1, "the record is missing")


def _id(row: _Row) -> str:
    return uuid_text(row.record.usage_id)
