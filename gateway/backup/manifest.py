"""What an archive says of itself: enough to know whether a restored database is the one that was
backed up, and from where the stream goes on."""

from __future__ import annotations

from datetime import datetime

import msgspec

from gateway.backup.problem import BackupProblem
from ledger import migrate, store
from ledger.db import Connection


class Manifest(msgspec.Struct, frozen=True):
    """`postgres` is the server's major version, `schema` the migrations applied, `rows` the rows
    of each table."""

    created_at: datetime
    postgres: int
    schema: list[str]
    cursors: list[store.Position]
    rows: dict[str, int]

    @property
    def partitions(self) -> int:
        return len(self.cursors)

    def differences(self, other: Manifest) -> list[str]:
        """What a restored database has otherwise, in words."""
        found = [
            f"{table} has {other.rows.get(table, 0)} rows instead of {rows}"
            for table, rows in self.rows.items()
            if other.rows.get(table, 0) != rows
        ]
        if self.schema != other.schema:
            found.append("the migrations differ")
        if self.cursors != other.cursors:
            found.append("the cursors differ")
        return found


async def of_database(connection: Connection, now: datetime) -> Manifest:
    """The manifest of what the connection's transaction sees; counts every row."""
    rows = await store.row_counts(connection)
    if "schema_migrations" not in rows:
        raise BackupProblem("the database holds no ledger; is DATABASE_URL right?")
    return Manifest(
        created_at=now,
        postgres=connection.get_server_version().major,
        schema=await store.applied_migrations(connection),
        cursors=await store.positions(connection),
        rows=rows,
    )


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.encode(manifest)


def decode(text: bytes) -> Manifest:
    """The manifest of an archive that this version can bring back. Raises `BackupProblem`."""
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.MsgspecError:
        raise BackupProblem("the archive was made by another version; restore with that") from None
    known = {migration.name for migration in migrate.shipped()}
    if unknown := [name for name in manifest.schema if name not in known]:
        raise BackupProblem(
            f"the archive has migration {unknown[0]}, which this version does not know: "
            "restore with the version that made it, or a newer one"
        )
    return manifest
