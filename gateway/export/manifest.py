"""What an exported folder says it holds, and whether it does."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal

import msgspec

from gateway.backup.problem import BackupProblem
from gateway.export import lines
from gateway.export.lines import SEALED
from ledger.store.export import Sums

NAME = "manifest.json"
FORMAT = 1  # of the files; grows when a reader of the one before would be wrong
_LONGEST = 16 << 20  # bytes of a manifest


class File(msgspec.Struct, frozen=True):
    """`sha256` is of the bytes on disk. `sums` by usage type or currency, exact; none where there
    is nothing to sum."""

    name: str
    sha256: str
    records: int
    sums: dict[str, str]


class Purged(msgspec.Struct, frozen=True):
    """A month that is not here, because it was purged before; its archive has it."""

    month: str
    archive: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`of` is an organisation or a month (YYYY-MM); `schema` the last migration of the ledger."""

    format: int
    kind: Literal["organization", "month"]
    of: str
    created_at: datetime
    schema: str
    sealed: bool
    files: list[File]
    purged: list[Purged] = []


class _Usage(msgspec.Struct):
    usage_type: str
    quantity: Decimal


class _Line(msgspec.Struct):
    amount: Decimal


class _Invoice(msgspec.Struct):
    invoice_id: str
    currency: str
    total: Decimal
    lines: list[_Line]


def file_of(path: Path, key: bytes | None) -> File:
    """A file, read to its end and summed. Raises `BackupProblem`."""
    name = path.name.removesuffix(SEALED)
    read, records, sums = _READERS.get(name, _counted), 0, defaultdict[str, Decimal](Decimal)
    try:
        for line in lines.lines(path, key):
            records += 1
            if (found := read(line)) is not None:
                sums[found[0]] += found[1]
        said = {one: f"{total.normalize():f}" for one, total in sorted(sums.items())}
        return File(path.name, lines.hash_of(path), records, said)
    except msgspec.MsgspecError:
        raise BackupProblem(f"line {records} of {path} is no record of an export") from None


def expect(found: File, expected: Sums) -> None:
    """Raises `BackupProblem` unless a file that was just written holds what the ledger does."""
    sums = {name: f"{total.normalize():f}" for name, total in expected.sums.items()}
    if (found.records, found.sums) != (expected.records, sums):
        raise BackupProblem(
            f"{found.name} does not hold what the ledger does: it has {found.records} records, the "
            f"ledger {expected.records}; nothing was kept of it"
        )


def write(folder: Path, manifest: Manifest) -> None:
    with lines.new_file(folder, NAME, None) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")


def read(folder: Path) -> Manifest:
    """What a folder says of itself. Raises `BackupProblem`."""
    path = folder / NAME
    try:
        with path.open("rb") as file:
            manifest = msgspec.json.decode(file.read(_LONGEST), type=Manifest)
    except OSError as error:
        raise BackupProblem(f"{path} cannot be read: {error.strerror}", 2) from None
    except msgspec.MsgspecError:
        raise BackupProblem(f"{path} is not the manifest of an export", 2) from None
    if manifest.format != FORMAT:
        raise BackupProblem(f"{path} is of another version; verify it with the one that made it", 2)
    if any(os.path.basename(one.name) != one.name for one in manifest.files):
        raise BackupProblem(f"{path} names files outside of its folder", 2)
    return manifest


def verify(folder: Path, key: bytes | None) -> Manifest:
    """Reads every file of a folder and sums it again. Raises `BackupProblem` for the first that is
    not what the manifest says, or is there besides."""
    said = read(folder)
    for one in said.files:
        try:
            found = file_of(folder / one.name, key)
        except OSError as error:
            raise BackupProblem(f"{folder / one.name} cannot be read: {error.strerror}") from None
        if found != one:
            raise BackupProblem(f"{folder / one.name} is not what was exported: {_of(one, found)}")
    strangers = {path.name for path in folder.iterdir()} - {NAME, *(one.name for one in said.files)}
    if strangers:
        raise BackupProblem(f"{folder / min(strangers)} is no file of this export")
    return said


def _of(said: File, found: File) -> str:
    if said.records != found.records:
        return f"{found.records} records instead of {said.records}"
    return "the sums differ" if said.sums != found.sums else "the checksum differs"


def _usage(line: bytes) -> tuple[str, Decimal]:
    found = msgspec.json.decode(line, type=_Usage)
    return found.usage_type, found.quantity


def _invoice(line: bytes) -> tuple[str, Decimal]:
    found = msgspec.json.decode(line, type=_Invoice)
    if sum((one.amount for one in found.lines), Decimal(0)) != found.total:
        raise BackupProblem(f"invoice {found.invoice_id}: its lines do not sum to its total")
    return found.currency, found.total


def _counted(line: bytes) -> None:
    msgspec.json.decode(line)


_READERS: Mapping[str, Callable[[bytes], tuple[str, Decimal] | None]] = {
    "usage.jsonl": _usage,
    "month.jsonl": _usage,
    "corrections.jsonl": _usage,
    "invoices.jsonl": _invoice,
}
