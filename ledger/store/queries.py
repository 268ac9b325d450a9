"""The queries of ``ledger/sql`` by name; a test prepares each against the migrated schema."""

from __future__ import annotations

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)


def _named(text: str) -> dict[str, str]:
    parts = _NAME.split(text)[1:]
    return {
        name: sql.strip().rstrip(";") for name, sql in zip(parts[::2], parts[1::2], strict=True)
    }


def _read() -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in sorted(files("ledger").joinpath("sql").iterdir(), key=lambda file: file.name):
        if entry.name.endswith(".sql"):
            found |= _named(entry.read_text("utf-8"))
    return found


QUERIES = _read()
