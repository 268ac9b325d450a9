"""From a CSV file to usage records: who used what, how much, and under which key.

The idempotency key of a record is ``replay:<identity>:<row>:<mapping>``:

- *identity*: the first 32 hex digits of the SHA-256 of the file's bytes. A moved, renamed or
  copied file is the same file, so sending it again changes nothing. A file whose bytes changed
  is another file, unless ``--identity`` says it continues an earlier one: then rows already
  recorded are recognised, corrected cells and rows added at the end count, and a row that was
  recorded otherwise before is refused (422), never doubled. Do not insert or remove rows.
- *row*: the number of the data row; the first is 1, blank lines are not counted.
- *mapping*: a digest of the column and the usage_type, and of N and M when users are made up
  (``--users N --orgs M``). Adding a ``--map`` later adds its records and repeats the others.

Made-up users can be recomputed: row 1 goes to user 0, row 2 to user 1, and so on modulo N;
user *u* belongs to organisation *u* modulo M, or to none when M is 0::

    space = uuid.uuid5(uuid.NAMESPACE_DNS, "replay.billing")
    user_id = uuid.uuid5(space, f"user-{u}")
    organization_id = uuid.uuid5(space, f"organization-{u % M}")

Nothing of the moment of sending is in a record, so the same row always has the same body.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
import math
import os
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from io import TextIOWrapper
from typing import BinaryIO

import msgspec

ROW = ":row"
"""The ``--map`` column that stands for "one per row"."""

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "replay.billing")

_CHUNK = 1 << 20
_LONGEST_ID = 255
# Short and with a small exponent: a cell such as 1E+999999 must not become a huge number.
_NUMBER = re.compile(r"(?=.{1,40}\Z)(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?")


class FileProblem(Exception):
    """The file cannot be read as asked; the message is one line for the user."""


class Mapping(msgspec.Struct, frozen=True):
    """One ``--map COLUMN=usage_type``."""

    column: str
    usage_type: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a row becomes records: the mappings, and where its user and its time come from."""

    mappings: tuple[Mapping, ...]
    user_column: str | None = None
    organization_column: str | None = None
    users: int = 0
    organizations: int = 0
    time_column: str | None = None


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record as the service takes it."""

    user_id: str
    usage_type: str
    quantity: Decimal
    idempotency_key: str
    organization_id: str | None = None


class Record(msgspec.Struct, frozen=True):
    """A usage record and the place in the file it came from."""

    line: int
    column: str
    usage: Usage


class Row(msgspec.Struct, frozen=True):
    """What one row of the file asks for; ``time`` is only read when the plan has a time column.

    A problem comes with the number of records it rejects.
    """

    time: float | None
    records: list[Record]
    skipped: int
    problems: list[tuple[str, int]]


async def identity_of(file: BinaryIO, breathe: Callable[[], Awaitable[None]]) -> str:
    """The file's identity. Refuses bytes that are not UTF-8 before anything is sent."""
    digest, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8")()
    try:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            decoder.decode(chunk)
            await breathe()
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise FileProblem("is not UTF-8 text") from None
    file.seek(0)
    return digest.hexdigest()[:32]


def made_up_user(user: int, organizations: int) -> tuple[str, str | None]:
    """The ids of made-up user number ``user`` and of its organisation."""
    user_id = str(uuid.uuid5(NAMESPACE, f"user-{user}"))
    if not organizations:
        return user_id, None
    return user_id, str(uuid.uuid5(NAMESPACE, f"organization-{user % organizations}"))


class Rows:
    """The rows of an open CSV file, read one at a time."""

    def __init__(self, file: BinaryIO, plan: Plan, identity: str) -> None:
        self._file, self._plan, self.identity = file, plan, identity
        self._stamp = _stamp(file)
        text = TextIOWrapper(file, encoding="utf-8-sig", newline="")
        # strict: a quote that is never closed must not swallow the rest of the file in silence.
        self._reader = csv.reader(text, strict=True)
        try:
            self._header = [name.strip() for name in next(self._reader)]
        except StopIteration:
            raise FileProblem("is empty") from None
        except csv.Error as error:
            raise FileProblem(f"line 1: {error}") from None
        self._user = self._index(plan.user_column)
        self._organization = self._index(plan.organization_column)
        self._time = self._index(plan.time_column)
        self._cells = [
            (mapping, None if mapping.column == ROW else self._index(mapping.column))
            for mapping in plan.mappings
        ]
        self._suffixes = [_mapping_digest(plan, mapping) for mapping in plan.mappings]

    @property
    def fraction_read(self) -> float:
        """How much of the file has been read, from 0 to 1."""
        return self._file.tell() / max(1, self._stamp[0])

    def __iter__(self) -> Iterator[Row]:
        number, line = 0, self._reader.line_num + 1
        try:
            for cells in self._reader:
                if cells:
                    number += 1
                    if number % 1000 == 0:
                        self._refuse_change()
                    yield self._row(number, line, cells)
                line = self._reader.line_num + 1
        except csv.Error as error:
            raise FileProblem(f"line {line}: {error}") from None
        self._refuse_change()

    def _row(self, number: int, line: int, cells: list[str]) -> Row:
        if len(cells) != len(self._header):
            reason = f"line {line}: has {len(cells)} fields, the header {len(self._header)}"
            return Row(None, [], 0, [(reason, len(self._cells))])
        time = None
        if self._time is not None:
            time = _seconds(cells[self._time].strip())
            if time is None:
                return self._refused(line, self._plan.time_column, "is not a time")
        if self._user is None:
            user = (number - 1) % self._plan.users
            user_id, organization = made_up_user(user, self._plan.organizations)
        else:
            user_id = cells[self._user].strip()
            if not 0 < len(user_id) <= _LONGEST_ID:
                return self._refused(line, self._plan.user_column, "is not a user id")
            column = self._organization
            organization = (cells[column].strip() or None) if column is not None else None
            if organization is not None and len(organization) > _LONGEST_ID:
                return self._refused(line, self._plan.organization_column, "is too long")
        records, problems = [], []
        for (mapping, index), suffix in zip(self._cells, self._suffixes, strict=True):
            quantity = Decimal(1) if index is None else _quantity(cells[index].strip())
            if quantity is None:
                # The cell itself is not repeated: a wrongly mapped column may hold anything.
                problem = f"line {line}, column {mapping.column}: is not a quantity"
                problems.append((problem, 1))
            elif quantity:
                key = f"replay:{self.identity}:{number}:{suffix}"
                usage = Usage(user_id, mapping.usage_type, quantity, key, organization)
                records.append(Record(line, mapping.column, usage))
        skipped = len(self._cells) - len(records) - len(problems)
        return Row(time, records, skipped, problems)

    def _refused(self, line: int, column: str | None, reason: str) -> Row:
        problem = f"line {line}, column {column}: {reason}"
        return Row(None, [], 0, [(problem, len(self._cells))])

    def _index(self, column: str | None) -> int | None:
        if column is None:
            return None
        if (times := self._header.count(column)) != 1:
            where = "more than one column" if times else "no column"
            raise FileProblem(f"has {where} named {column!r} in its first line")
        return self._header.index(column)

    def _refuse_change(self) -> None:
        """A file that grows while it is read would be sent under an identity it no longer has."""
        if _stamp(self._file) != self._stamp:
            raise FileProblem("changed while it was read")


def _stamp(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _mapping_digest(plan: Plan, mapping: Mapping) -> str:
    parts: list[object] = [mapping.column, mapping.usage_type]
    if plan.user_column is None:
        parts += [plan.users, plan.organizations]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _quantity(text: str) -> Decimal | None:
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _seconds(text: str) -> float | None:
    """ISO 8601 (UTC unless it says otherwise) or Unix seconds; only ever used to wait."""
    try:
        if _NUMBER.fullmatch(text):
            return float(text)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None
