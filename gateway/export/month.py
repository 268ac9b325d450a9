"""A month of usage records, sealed in a folder before it is purged."""

from __future__ import annotations

import asyncio
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

from gateway.backup.problem import BackupProblem
from gateway.export import manifest
from gateway.export.folder import new_folder
from gateway.export.lines import hash_of
from gateway.export.manifest import FORMAT, Manifest
from gateway.export.organization import written
from ledger import retention, store
from ledger.audit import verify
from ledger.db import Connection
from ledger.retention import Archived
from ledger.store.export import Sums


async def purge(
    db: Connection, month: date, folder: Path, key: bytes, *, actor: str, now: datetime
) -> Archived:
    """Archives a month and then drops it; done again after a crash, it goes on. Raises
    `BackupProblem`, `ledger.retention.Kept`."""
    archived = await archive(db, month, folder / f"usage-{month:%Y-%m}", key, now)
    try:
        await retention.purge(db, month, archived, actor=actor, now=now)
    except retention.NotArchived:
        raise BackupProblem(
            f"{folder / archived.archive} does not hold what the ledger has of {month:%Y-%m}; move "
            "it away, and a new one is written"
        ) from None
    return archived


async def archive(db: Connection, month: date, path: Path, key: bytes, now: datetime) -> Archived:
    """The archive of a month: one that an interrupted purge left, or a new one. Raises
    `BackupProblem`, also where the seals say that rows were tampered with."""
    if not path.exists():
        await _write(db, month, path, key, now)
    said = await asyncio.to_thread(manifest.verify, path, key)
    if (said.kind, said.of) != ("month", f"{month:%Y-%m}") or not said.sealed:
        raise BackupProblem(f"{path} is not the sealed archive of {month:%Y-%m}; move it away")
    [file] = [one for one in said.files if one.name.startswith("month.")]
    sums = Sums(file.records, {name: Decimal(total) for name, total in file.sums.items()})
    return Archived(path.name, sums, hash_of(path / manifest.NAME))


async def _write(db: Connection, month: date, path: Path, key: bytes, now: datetime) -> None:
    with new_folder(path) as folder:
        async with db.transaction(isolation="repeatable_read", readonly=True):
            files = await written(db, ["month"], month, folder, key)
            broken = await verify.through(db, await store.retention.ends(db, month))
            if broken:
                raise BackupProblem(
                    f"records were tampered with ({broken[0].said}): nothing is purged before "
                    "that is looked into"
                )
            said = Manifest(
                format=FORMAT,
                kind="month",
                of=f"{month:%Y-%m}",
                created_at=now,
                schema=(await store.applied_migrations(db))[-1],
                sealed=True,
                files=files,
            )
        manifest.write(folder, said)
