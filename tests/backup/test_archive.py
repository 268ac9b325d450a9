"""The file of a backup: what was not written by `write` with this key, whole, does not open."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from gateway.backup import archive
from gateway.backup.archive import CHUNK, MAGIC, Archive, write
from gateway.backup.problem import BackupProblem

KEY, MANIFEST = bytes(range(32)), b'{"rows": 1}'
HEADER = len(MAGIC) + 32 + 8 + 4 + len(MANIFEST)
SEALED = CHUNK + 16
CONTENT = b"".join(bytes([number]) * CHUNK for number in range(3)) + b"the end"


def nothing() -> None:
    pass


def written(content: bytes = CONTENT, key: bytes = KEY) -> bytes:
    file = io.BytesIO()
    write(file, key, MANIFEST, io.BytesIO(content).read, nothing)
    return file.getvalue()


def opened(raw: bytes, key: bytes = KEY) -> bytes:
    file = io.BytesIO(raw)
    file.name = "a.backup"
    found = Archive(file, key)
    found.verify()
    assert found.manifest == MANIFEST
    return b"".join(found.chunks())


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7])
def test_what_is_written_is_read(size: int) -> None:
    content = bytes(size)
    assert opened(written(content)) == content


def test_the_same_content_is_never_sealed_alike() -> None:
    one, other = written(), written()
    assert one[: len(MAGIC)] == other[: len(MAGIC)]
    assert one[HEADER:] != other[HEADER:]
    assert b"the end" not in one


def flipped(place: int) -> Callable[[bytes], bytes]:
    def flip(raw: bytes) -> bytes:
        return raw[:place] + bytes([raw[place] ^ 1]) + raw[place:][1:]

    return flip


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(flipped(len(MAGIC)), id="salt"),
        pytest.param(flipped(HEADER - 2), id="manifest"),
        pytest.param(flipped(HEADER), id="first chunk"),
        pytest.param(flipped(-1), id="last tag"),
        pytest.param(lambda raw: raw[:-1], id="last byte gone"),
        pytest.param(lambda raw: raw[: HEADER + 3 * SEALED], id="last chunk gone"),
        pytest.param(lambda raw: raw[: HEADER + SEALED], id="only one chunk left"),
        pytest.param(lambda raw: raw[:HEADER], id="only the header left"),
        pytest.param(lambda raw: raw + b"more", id="something after the end"),
        pytest.param(lambda raw: raw + raw[HEADER + 3 * SEALED :], id="last chunk twice"),
        pytest.param(lambda raw: raw[:HEADER] + raw[HEADER + SEALED :], id="first chunk gone"),
        pytest.param(
            lambda raw: (
                raw[:HEADER]
                + raw[HEADER + SEALED : HEADER + 2 * SEALED]
                + raw[HEADER : HEADER + SEALED]
                + raw[HEADER + 2 * SEALED :]
            ),
            id="two chunks swapped",
        ),
        pytest.param(lambda raw: raw[:HEADER] + written()[HEADER:], id="another file's chunks"),
    ],
)
def test_what_was_changed_is_refused(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BackupProblem, match=r"a\.backup is damaged, altered or cut short"):
        opened(change(written()))


def test_another_key_is_named_but_not_shown() -> None:
    with pytest.raises(BackupProblem) as refused:
        opened(written(key=bytes(32)))
    said = str(refused.value)
    assert archive.key_id(KEY).hex() in said and archive.key_id(bytes(32)).hex() in said
    assert KEY.hex() not in said


def test_another_key_under_the_same_id_does_not_open_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "key_id", lambda key: bytes(8))
    with pytest.raises(BackupProblem, match="altered"):
        opened(written(key=bytes(32)))


@pytest.mark.parametrize("raw", [b"", b"PGDMP", MAGIC, MAGIC + b"\xff" * 100])
def test_what_is_no_archive_is_said_to_be_none(raw: bytes) -> None:
    with pytest.raises(BackupProblem, match="is not a backup"):
        opened(raw)


def test_an_archive_whose_dump_failed_does_not_open() -> None:
    file = io.BytesIO()

    def failed() -> None:
        raise BackupProblem("pg_dump failed")

    with pytest.raises(BackupProblem, match="pg_dump"):
        write(file, KEY, MANIFEST, io.BytesIO(CONTENT).read, failed)
    with pytest.raises(BackupProblem, match="cut short"):
        opened(file.getvalue())


def test_no_more_than_two_chunks_are_in_memory() -> None:
    held: list[int] = []

    class Endless:
        left = 20

        def read(self, size: int) -> bytes:
            held.append(size)
            self.left -= 1
            return bytes(size) if self.left > 0 else b""

    class Sink(io.BytesIO):
        def write(self, sealed: object) -> int:
            assert len(held) - self.chunks <= 2
            self.chunks += 1
            return 0

        chunks = -1  # the header

    write(Sink(), KEY, MANIFEST, Endless().read, nothing)
    assert len(held) == 20 and set(held) == {CHUNK}
