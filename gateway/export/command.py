"""The command line of ``./run export``.

Exit codes: 0 done, 1 failed or not what was exported, 2 the command or the configuration cannot be
used.
"""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from uuid import UUID

import msgspec

from gateway.backup.databases import unreachable
from gateway.backup.key import backup_key, key_of
from gateway.backup.problem import BackupProblem
from gateway.export import lines, manifest
from gateway.export.folder import new_folder
from gateway.export.lines import SEALED
from gateway.export.manifest import Manifest
from gateway.export.organization import export as export_organization
from ledger import db, migrate, store
from ledger.domain.ids import dev_uuid, parse
from ledger.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``./run export``."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("organization", metavar="ORGANIZATION", nargs="?", help="whose records")
    what.add_argument(
        "--verify", metavar="FOLDER", type=Path, help="read an export and sum it again"
    )
    what.add_argument(
        "--open", metavar="FOLDER", type=Path, help="write a sealed export in plain text to --out"
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        type=Path,
        help="the folder to make; in one that exists it is named after organisation and time",
    )
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    parser.epilog = "With BACKUP_KEY_FILE set, what is exported is sealed as a backup is."


async def export(args: argparse.Namespace, config: Settings, now: datetime) -> int:
    """Runs ``./run export``; the exit code. Raises `BackupProblem`, `SettingError`."""
    if args.verify is not None:
        said = manifest.verify(args.verify, _key_for(args.verify, config))
        _print(args, f"{args.verify} is whole", said)
        return 0
    if args.out is None:
        raise BackupProblem("export needs --out FOLDER", 2)
    if args.open is not None:
        said = _open(args.open, args.out, key_of(config))
        _print(args, f"{args.out} written", said)
        return 0
    path, said = await _exported(args, config, now)
    _print(args, f"{path} written", said)
    return 0


async def _exported(
    args: argparse.Namespace, config: Settings, now: datetime
) -> tuple[Path, Manifest]:
    organization_id = _identified(args.organization, config)
    key = backup_key(config.backup_key_file) if config.backup_key_file else None
    name = f"export-{organization_id}-{now:%Y%m%dT%H%M%SZ}"
    path = args.out / name if args.out.is_dir() else args.out
    try:
        connection = await db.connect(config.database_url, patient=True)
    except (*db.UNAVAILABLE, db.PostgresError, ValueError) as error:
        raise unreachable(error) from None
    try:
        if missing := await migrate.pending(connection):
            raise BackupProblem(f"{missing[0]} is not applied; run ./run migrate", 2)
        if not await _is_known(connection, organization_id):
            raise BackupProblem(f"there is no organization {organization_id}")
        return path, await export_organization(connection, organization_id, path, key, now)
    except migrate.MigrationError as error:
        raise BackupProblem(str(error), 2) from None
    except (*db.UNAVAILABLE, db.PostgresError) as error:
        # Never the error's own text: it may quote a row.
        reason = type(error).__name__
        raise BackupProblem(f"no answer from Postgres ({reason}); try again") from None
    finally:
        await connection.close(timeout=1)


async def _is_known(connection: db.Connection, organization_id: UUID) -> bool:
    if await store.organizations.find(connection, organization_id) is not None:
        return True
    return await store.organizations.is_known(connection, organization_id)


def _identified(name: str, config: Settings) -> UUID:
    try:
        return dev_uuid(name) if config.is_dev else parse(name)
    except ValueError:
        raise BackupProblem("export needs the UUID of an organization", 2) from None


def _key_for(folder: Path, config: Settings) -> bytes | None:
    return key_of(config) if manifest.read(folder).sealed else None


def _open(folder: Path, out: Path, key: bytes) -> Manifest:
    said = manifest.verify(folder, key)
    if not said.sealed:
        raise BackupProblem(f"{folder} is not sealed: it can be read as it is", 2)
    with new_folder(out) as draft:
        files = []
        for one in said.files:
            name = one.name.removesuffix(SEALED)
            with lines.new_file(draft, name, None) as file:
                for chunk in lines.chunks(folder / one.name, key):
                    file.write(chunk)
            files.append(manifest.file_of(draft / name, None))
        opened = msgspec.structs.replace(said, sealed=False, files=files)
        manifest.write(draft, opened)
    return opened


def _print(args: argparse.Namespace, line: str, said: Manifest) -> None:
    if args.json:
        print(msgspec.json.encode(said).decode())
        return
    print(line)
    print(f"  {said.kind} {said.of}, of {said.created_at:%Y-%m-%d %H:%M:%S} UTC, {said.schema}")
    for one in said.files:
        sums = ", ".join(f"{total} {name}" for name, total in one.sums.items())
        print(f"  {one.name:26} {one.records:10,} records  {sums}".rstrip())
    for gone in said.purged:
        print(f"  {gone.month} was purged: its records are in {gone.archive}")
