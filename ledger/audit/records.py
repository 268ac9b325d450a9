"""The chain of a partition's usage records, recomputed from rows and seals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from ledger import store
from ledger.audit.events import Checked
from ledger.db import Connection
from ledger.domain.seal import CANONICAL, FIRST_HEAD, MARK_BYTES, chain_of, mark, seal
from ledger.domain.usage import UsageRecord
from ledger.store.seals import Head, Seal
from lua.keys import uuid_text

# More than any batch has: whoever edits a seal must not make verify hold a whole table.
MOST_RECORDS = 100_000
AT_ONCE = 200  # records hashed while nothing else runs: some milliseconds
_LOWEST = -(2**63)  # rows of before the first place are no chain's: told of as well


class _Row(NamedTuple):
    position: int
    record: UsageRecord


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
    most: int | None = None,
    page: int = store.seals.PAGE,
) -> Checked:
    """Recomputes the seals after a place that is known to be whole, until so many records were
    read, and compares the last with the head that the cursor has. Within a transaction."""
    checked = Checked(chain_of(partition), *after)
    begin = after.position or _LOWEST
    rows = _Rows(store.seals.sealed_records(connection, partition, begin, decimals, page))
    async for one in store.seals.seals(connection, partition, after.position):
        if most is not None and checked.rows >= most:
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
    """Whether these are the records that were sealed; names each that is not."""
    found, first, last = checked.findings, one.first_position, one.last_position
    if one.version not in CANONICAL:
        found.add(last, f"its seal says that it is of version {one.version}")
        return
    records = [row.record for row in covered]
    if [row.position for row in covered] == list(range(first, first + len(covered))):
        made = seal(one.previous, records, partition=partition, first=first, version=one.version)
        if made == (one.head, one.marks) and len(covered) == one.records:
            return
    before = len(found.all)
    _name_rows(checked, one, covered)
    if len(found.all) == before:
        which = (
            "its seal was" if one.marks else f"one of the records from {first} on, or its seal, was"
        )
        found.add(last, f"{which} changed since they were sealed")


def _name_rows(checked: Checked, one: Seal, covered: list[_Row]) -> None:
    """By the marks; a seal of version 1 has none, and can say of a record only that it is gone."""
    found, expected = checked.findings, one.first_position
    marks = [one.marks[at : at + MARK_BYTES] for at in range(0, len(one.marks), MARK_BYTES)]
    places = {said: one.first_position + index for index, said in enumerate(marks)}
    for row in covered:
        if row.position < expected:
            found.add(row.position, "there is more than one record at this place", _id(row))
            continue
        found.missing(expected, row.position - 1, "the record is missing")
        expected = row.position + 1
        index = row.position - one.first_position
        if index >= len(marks):
            continue
        said = mark(CANONICAL[one.version](row.record))
        if said != marks[index]:
            was = places.get(said)
            moved = "" if was is None else f": it was sealed at {was}"
            found.add(row.position, f"is not the record that was sealed{moved}", _id(row))
    found.missing(expected, one.first_position + one.records - 1, "the record is missing")


def _id(row: _Row) -> str:
    return uuid_text(row.record.usage_id)
