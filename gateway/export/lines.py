"""One file of an export: a JSON object a line, plain or sealed with the key of the backups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from gateway.backup.archive import Archive, Sealer
from gateway.backup.problem import BackupProblem

SEALED = ".sealed"  # what such a file is called besides
_READ = 1 << 20  # bytes at a time
LONGEST_LINE = 16 << 20  # bytes; no invoice comes near, but a file may be anything


class Lines(Protocol):
    """Where lines are written to."""

    def write(self, content: bytes, /) -> object: ...


@contextmanager
def new_file(folder: Path, name: str, key: bytes | None) -> Iterator[Lines]:
    """A private file, synced when the block is left in good order."""
    path = folder / (name if key is None else name + SEALED)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        if key is None:
            yield file
        else:
            sealer = Sealer(file, key, name.encode())
            yield sealer
            sealer.finish()
        file.flush()
        os.fsync(file.fileno())


def hash_of(path: Path) -> str:
    """SHA-256 of a file as it lies there, in hexadecimal."""
    found = sha256()
    with path.open("rb") as file:
        while read := file.read(_READ):
            found.update(read)
    return found.hexdigest()


def chunks(path: Path, key: bytes | None) -> Iterator[bytes]:
    """What was written. Raises `BackupProblem` where it is sealed and not as it was."""
    with path.open("rb") as file:
        if path.name.endswith(SEALED):
            if key is None:
                raise BackupProblem(f"{path} is sealed: set BACKUP_KEY_FILE", 2)
            archive = Archive(file, key)
            if archive.manifest != path.name.removesuffix(SEALED).encode():
                raise BackupProblem(f"{path} is another file under this name")
            yield from archive.chunks()
        else:
            while read := file.read(_READ):
                yield read


def lines(path: Path, key: bytes | None) -> Iterator[bytes]:
    """The lines of a file. Raises `BackupProblem`."""
    rest = b""
    for chunk in chunks(path, key):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        if len(rest) > LONGEST_LINE:
            raise BackupProblem(f"{path} has a line that is too long: it is no export")
    if rest:
        raise BackupProblem(f"{path} ends within a line: it was cut short")
