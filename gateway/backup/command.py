"""The command lines of ``./run backup`` and ``./run restore``.

Exit codes: 0 done, 1 failed, 2 the command or the configuration cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import msgspec

from gateway.backup import manifest
from gateway.backup.archive import Archive
from gateway.backup.key import key_of
from gateway.backup.manifest import Manifest
from gateway.backup.problem import BackupProblem
from gateway.backup.restore import restore as restore_archive
from gateway.backup.take import take
from ledger.settings import Settings


def add_backup_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--to",
        metavar="FILE",
        type=Path,
        default=Path(),
        help="the archive to write; in a folder, or without this, it is named after the time",
    )
    parser.add_argument(
        "--verify", metavar="FILE", type=Path, help="only read an archive, and say what is in it"
    )
    parser.add_argument("--json", action="store_true", help="say it in JSON")


def add_restore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="an archive of ./run backup")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="take the place of a database that is not empty, which is kept under another name",
    )
    parser.add_argument("--json", action="store_true", help="say it in JSON")


async def backup(
    args: argparse.Namespace, config: Settings, now: datetime, environ: Mapping[str, str]
) -> int:
    """Takes or verifies a backup. Raises `BackupProblem`, `SettingError`, `StartError`."""
    _end_on_sigterm()
    key = key_of(config)
    if args.verify:
        with _verified(args.verify, key) as archive:
            said = manifest.decode(archive.manifest)
        _print(args, f"{args.verify} is whole", said, file=str(args.verify))
        return 0
    path = args.to / f"billing-{now:%Y%m%dT%H%M%SZ}.backup" if args.to.is_dir() else args.to
    said = await take(config.database_url, key, path, now, environ)
    _print(args, f"{path} written, {path.stat().st_size:,} bytes", said, file=str(path))
    return 0


async def restore(
    args: argparse.Namespace, config: Settings, now: datetime, environ: Mapping[str, str]
) -> int:
    """Restores an archive. Raises `BackupProblem`, `SettingError`, `StartError`."""
    _end_on_sigterm()
    with _verified(args.file, key_of(config)) as archive:
        done = await restore_archive(
            config.database_url, archive, replace=args.replace, now=now, environ=environ
        )
    line = f"{args.file} restored: every count as in the backup, {done.sealed:,} records sealed"
    if done.migrated:
        line += f", {done.migrated} migrations applied"
    if done.former:
        line += f"\nthe database from before is kept as {done.former}"
    _print(
        args, line, done.manifest,
        file=str(args.file), sealed=done.sealed, migrated=done.migrated, former=done.former,
    )  # fmt: skip
    return 0


def _end_on_sigterm() -> None:
    """What an orchestrator sends ends us as Ctrl-C does: with nothing left behind."""
    with suppress(RuntimeError, ValueError):  # not the main thread, which has the signals
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, os.kill, os.getpid(), signal.SIGINT)


@contextmanager
def _verified(path: Path, key: bytes) -> Iterator[Archive]:
    """The archive, read to its end: every byte is as it was written."""
    with ExitStack() as opened:
        try:
            archive = Archive(opened.enter_context(path.open("rb")), key)
            archive.verify()
        except OSError as error:
            raise BackupProblem(f"{path} cannot be read: {error.strerror}", 2) from None
        yield archive


def _print(args: argparse.Namespace, line: str, said: Manifest, **more: object) -> None:
    if args.json:
        print(msgspec.json.encode({**more, "manifest": said}).decode())
        return
    print(line)
    print(f"  taken {said.created_at:%Y-%m-%d %H:%M:%S} UTC, Postgres {said.postgres}")
    print(f"  schema {said.schema[-1]}, {said.partitions} partitions")
    for table, rows in said.rows.items():
        print(f"  {table:18} {rows:12,} rows")
    for one in said.cursors:
        if one.drained:
            print(
                f"  partition {one.partition:3} drained to {one.last_id}, {one.drained:,} entries"
            )
