"""Brings an archive back: read whole first, restored beside the present database, verified, and
only then given its name. Until that last step nothing has changed.

What comes after is the stream's: the ledger drains again what Redis still retains.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

import msgspec

from gateway.backup import manifest, programs
from gateway.backup.archive import Archive
from gateway.backup.databases import Databases, unreachable
from gateway.backup.manifest import Manifest
from gateway.backup.problem import BackupProblem
from gateway.binaries import postgres_clients
from ledger import db, migrate, store
from ledger.audit import verify


class Restored(msgspec.Struct, frozen=True):
    """`sealed` records were found as they were sealed; `former` is the name that the database
    from before has now, None when there was none worth keeping."""

    manifest: Manifest
    sealed: int
    migrated: int
    former: str | None


async def restore(
    database_url: str,
    archive: Archive,
    *,
    replace: bool,
    now: datetime,
    environ: Mapping[str, str],
) -> Restored:
    """Restores an archive that was verified. Raises `BackupProblem` and has changed nothing, or
    `StartError` where the programs are missing."""
    said = manifest.decode(archive.manifest)
    async with Databases(database_url) as databases:
        if databases.postgres < said.postgres:
            raise BackupProblem(
                f"the archive is of Postgres {said.postgres}, the server is "
                f"{databases.postgres}: restore into {said.postgres} or newer"
            )
        program = postgres_clients(databases.postgres) / "pg_restore"
        empty = await _empty(databases, replace)
        await databases.refuse_connected()
        await databases.create_draft()
        try:
            draft_url = databases.url(databases.draft)
            options = ["--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges"]
            with programs.running(program, options, draft_url, environ, reads=True) as filling:
                await asyncio.to_thread(_fill, archive, filling)
            migrated, sealed = await _verify(draft_url, said, now)
            former = await databases.swap(now)
        except BaseException:
            await databases.drop_draft()
            raise
        if former and empty:
            with suppress(BackupProblem):  # it is done; an empty database harms nobody
                await databases.drop(former)
                former = None
    return Restored(said, sealed, migrated, former)


async def _empty(databases: Databases, replace: bool) -> bool:
    """Whether there is nothing to keep. With `replace` a database that does not even let us in is
    kept; without, it must be known to be empty."""
    if not await databases.exists():
        return True
    try:
        connection = await db.connect(databases.url(databases.name), patient=True)
        try:
            empty = not await store.row_counts(connection)
        finally:
            await connection.close(timeout=1)
    except (*db.UNAVAILABLE, db.PostgresError) as error:
        if replace:
            return False
        raise unreachable(error) from None
    if not empty and not replace:
        raise BackupProblem(
            f"database {databases.name} is not empty; with --replace the archive takes its place, "
            "and it is kept under another name"
        )
    return empty


def _fill(archive: Archive, filling: programs.Program) -> None:
    with suppress(BrokenPipeError):  # it has given up; why is for it to say
        for chunk in archive.chunks():
            filling.stdin.write(chunk)
    filling.complete()


async def _verify(database_url: str, said: Manifest, now: datetime) -> tuple[int, int]:
    """Compares the draft with the manifest, brings it to this version and recomputes its seals;
    how many migrations that took, and how many records are sealed."""
    connection = await db.connect(database_url, patient=True)
    try:
        found = await manifest.of_database(connection, now)
        if differences := said.differences(found):
            raise BackupProblem(f"the restored database is not the one backed up: {differences[0]}")
        migrated = await migrate.migrate(database_url)
        sealed = await verify.intact(connection)
        async with connection.transaction():
            await store.renew_terms(connection)
            await store.insert_audit_event(
                connection, "ledger_restored", "operator", _details(said), now
            )
    except db.PostgresError as error:
        raise BackupProblem(f"Postgres: {error}") from None
    except verify.Broken as error:
        raise BackupProblem(f"the restored ledger was tampered with: {error}") from None
    except migrate.MigrationError as error:
        raise BackupProblem(f"the restored database cannot be migrated: {error}") from None
    finally:
        await connection.close(timeout=1)
    return migrated, sealed


def _details(said: Manifest) -> dict[str, object]:
    cursors = {str(one.partition): one.last_id for one in said.cursors}
    return {"backup_created_at": said.created_at.isoformat(), "cursors": cursors}
