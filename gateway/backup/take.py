"""Takes a backup: one instant of the database, dumped, sealed and only then given its name."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from gateway.backup import archive, manifest, programs
from gateway.backup.databases import unreachable
from gateway.backup.manifest import Manifest
from gateway.backup.problem import BackupProblem
from gateway.binaries import postgres_clients
from ledger import db, store


async def take(
    database_url: str, key: bytes, path: Path, now: datetime, environ: Mapping[str, str]
) -> Manifest:
    """Writes the archive, which is whole or not there. Raises `BackupProblem`, `StartError`."""
    with _new_file(path) as file:
        try:
            connection = await db.connect(database_url, patient=True)
        except (*db.UNAVAILABLE, db.PostgresError, ValueError) as error:
            raise unreachable(error) from None
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                snapshot = await store.export_snapshot(connection)
                said = await manifest.of_database(connection, now)
                options = ["--format=custom", "--no-owner", f"--snapshot={snapshot}"]
                program = postgres_clients(said.postgres) / "pg_dump"
                with programs.running(program, options, database_url, environ, reads=False) as dump:
                    await asyncio.to_thread(
                        archive.write,
                        file,
                        key,
                        manifest.encode(said),
                        dump.stdout.read,
                        dump.complete,
                    )
        except db.PostgresError as error:
            raise BackupProblem(f"Postgres: {error}") from None
        finally:
            await connection.close(timeout=1)
    return said


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A private file that gets its name once it is written and synced. Its draft is of a fixed
    name, so that what an interrupted backup left is written over by the next."""
    if path.exists():
        raise BackupProblem(f"{path} exists already; name another file", 2)
    draft = path.with_name(f"{path.name}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                file.truncate()
                os.fchmod(file.fileno(), 0o600)
                yield file
                file.flush()
                os.fsync(file.fileno())
                draft.rename(path)
            except BaseException:
                draft.unlink()
                raise
        _sync_folder(path.parent)
    except BlockingIOError:
        raise BackupProblem(f"another backup is being written to {path}") from None
    except OSError as error:
        wrong = isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError)
        said = f"{path} cannot be written: {error.strerror}"
        raise BackupProblem(said, 2 if wrong else 1) from None


def _sync_folder(folder: Path) -> None:
    """Makes a rename in it outlive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
