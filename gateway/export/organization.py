"""The records of one organisation, of one instant, in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from uuid import UUID

from gateway.export import manifest
from gateway.export.folder import new_folder
from gateway.export.lines import SEALED, new_file
from gateway.export.manifest import FORMAT, File, Manifest, Purged
from ledger import store
from ledger.db import Connection
from ledger.store.export import OF_ORGANIZATION, Table

_BUFFER = 2000  # lines written at once


async def export(
    db: Connection, organization_id: UUID, path: Path, key: bytes | None, now: datetime
) -> Manifest:
    """Writes the folder, which is whole or not there: read back, and summed to what the ledger
    sums to. Raises `BackupProblem`."""
    with new_folder(path) as folder:
        async with db.transaction(isolation="repeatable_read", readonly=True):
            files = await written(db, OF_ORGANIZATION, organization_id, folder, key)
            gone = await store.retention.of_organization(db, organization_id)
            said = Manifest(
                format=FORMAT,
                kind="organization",
                of=str(organization_id),
                created_at=now,
                schema=(await store.applied_migrations(db))[-1],
                sealed=key is not None,
                files=files,
                purged=[Purged(f"{one.month:%Y-%m}", one.archive) for one in gone],
            )
        manifest.write(folder, said)
    return said


async def written(
    db: Connection, tables: Sequence[Table], of: UUID | date, folder: Path, key: bytes | None
) -> list[File]:
    """Writes a file of each table and reads it back; within a transaction that sees one instant.
    Raises `BackupProblem`."""
    await store.export.read_patiently(db)
    files = []
    for table in tables:
        expected = await store.export.sums(db, table, of)
        name = f"{table}.jsonl"
        await _write(db, table, of, folder, name, key)
        found = manifest.file_of(folder / (name if key is None else name + SEALED), key)
        manifest.expect(found, expected)
        files.append(found)
    return files


async def _write(
    db: Connection, table: Table, of: UUID | date, folder: Path, name: str, key: bytes | None
) -> None:
    with new_file(folder, name, key) as file:
        waiting: list[str] = []
        async for line in store.export.lines(db, table, of):
            waiting.append(line + "\n")
            if len(waiting) == _BUFFER:
                file.write("".join(waiting).encode())
                waiting.clear()
        file.write("".join(waiting).encode())
