"""A private folder that gets its name once everything in it is written and synced."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.backup.problem import BackupProblem


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Where to write what will be `path`. Its draft is of a fixed name, so that what an interrupted
    export left is written over by the next. Raises `BackupProblem`."""
    if path.exists():
        raise BackupProblem(f"{path} exists already; name another folder", 2)
    draft = path.with_name(f"{path.name}.part")
    try:
        draft.mkdir(0o700, exist_ok=True)
        with _held(draft):
            try:
                _empty(draft)
                yield draft
                sync_folder(draft)
                draft.rename(path)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        sync_folder(path.parent)
    except BlockingIOError:
        raise BackupProblem(f"{path} is being written by another export") from None
    except (ConnectionError, TimeoutError):
        raise  # of Postgres, not of the disk
    except OSError as error:
        wrong = isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError)
        raise BackupProblem(
            f"{path} cannot be written: {error.strerror}", 2 if wrong else 1
        ) from None


def sync_folder(folder: Path) -> None:
    """Makes what was named in it outlive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(descriptor, 0o700)
        yield
    finally:
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for one in folder.iterdir():
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)
        else:
            one.unlink()
