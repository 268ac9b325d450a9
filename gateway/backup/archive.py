"""The file of a backup: a header in the clear, then a stream of sealed chunks.

    magic, 32 bytes of salt, 8 bytes of key id, length of the manifest, the manifest (JSON)
    chunk 0, chunk 1, ... each 1 MiB and a tag of 16 bytes; the last one is shorter or as long

AES-256-GCM with a key of the file's own (HKDF of the operator's key and the salt). A chunk's nonce
is its number and whether it is the last, its associated data the hash of the header: so a file that
was altered, reordered, cut short or given another header does not open. Nobody but pg_dump and
pg_restore sees plain text, and memory holds two chunks at most.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.backup.problem import BackupProblem

CHUNK = 1 << 20  # bytes: large enough for the cipher's speed, small enough to hold
MAGIC = b"billing-backup-1\n"
_SALT, _KEY_ID, _LENGTH, _TAG = 32, 8, 4, 16
_LONGEST_MANIFEST = 1 << 20  # bytes; a damaged length must not make us read the whole file


def write(
    file: BinaryIO,
    key: bytes,
    manifest: bytes,
    read: Callable[[int], bytes],
    complete: Callable[[], None],
) -> None:
    """Seals what `read` gives, until it gives nothing. `complete` raises when that was not all:
    then the last chunk is never written, and what there is does not open."""
    sealer = Sealer(file, key, manifest)
    while chunk := read(CHUNK):
        sealer.write(chunk)
    complete()
    sealer.finish()


class Sealer:
    """Writes an archive a piece at a time; without `finish` what there is does not open."""

    def __init__(self, file: BinaryIO, key: bytes, manifest: bytes) -> None:
        salt = os.urandom(_SALT)
        header = MAGIC + salt + key_id(key) + len(manifest).to_bytes(_LENGTH, "big") + manifest
        self._cipher, self._bound = _cipher(key, salt), sha256(header).digest()
        self._file, self._number, self._waiting = file, 0, bytearray()
        file.write(header)

    def write(self, content: bytes) -> None:
        self._waiting += content
        while len(self._waiting) > CHUNK:  # a full one may be the last, which is sealed as such
            self._seal(bytes(self._waiting[:CHUNK]), last=False)
            del self._waiting[:CHUNK]

    def finish(self) -> None:
        self._seal(bytes(self._waiting), last=True)

    def _seal(self, chunk: bytes, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._number, last=last), chunk, self._bound))
        self._number += 1


class Archive:
    """An archive opened for reading. `manifest` can be believed once `verify` has returned.
    Raises `BackupProblem` for what is no archive, or of another key."""

    def __init__(self, file: BinaryIO, key: bytes) -> None:
        self._file = file
        front = file.read(len(MAGIC) + _SALT + _KEY_ID + _LENGTH)
        length = int.from_bytes(front[-_LENGTH:], "big")
        if not front.startswith(MAGIC) or length > _LONGEST_MANIFEST:
            raise BackupProblem(f"{file.name} is not a backup of this service", 2)
        rest = front[len(MAGIC) :]
        salt, made_with = rest[:_SALT], rest[_SALT : _SALT + _KEY_ID]
        if made_with != key_id(key):
            raise BackupProblem(
                f"{file.name} was made with key {made_with.hex()}, BACKUP_KEY_FILE holds "
                f"{key_id(key).hex()}: set it to the key of that time",
                2,
            )
        self.manifest = file.read(length)
        self._cipher = _cipher(key, salt)
        self._bound = sha256(front + self.manifest).digest()
        self._start = file.tell()

    def verify(self) -> None:
        """Opens every chunk. Raises `BackupProblem` unless all are there as they were written."""
        for _ in self.chunks():
            pass

    def chunks(self) -> Iterator[bytes]:
        """The content, each part checked before it is given."""
        self._file.seek(self._start)
        number, sealed = 0, self._file.read(CHUNK + _TAG)
        while True:
            following = self._file.read(CHUNK + _TAG)
            try:
                nonce = _nonce(number, last=not following)
                chunk = self._cipher.decrypt(nonce, sealed, self._bound)
            except (InvalidTag, ValueError):
                raise BackupProblem(
                    f"{self._file.name} is damaged, altered or cut short; use another copy"
                ) from None
            yield chunk
            if not following:
                return
            number, sealed = number + 1, following


def key_id(key: bytes) -> bytes:
    """Tells keys apart without saying anything about them."""
    return _derive(key, None, b"billing backup: key id", _KEY_ID)


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(_derive(key, salt, b"billing backup: chunks", 32))


def _derive(key: bytes, salt: bytes | None, purpose: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=purpose).derive(key)


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
