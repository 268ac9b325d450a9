"""500 and more texts that look like what must not enter, and must pass: those of look_alikes.txt,
and ids without any pattern."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import NAMESPACE_DNS, uuid3, uuid5

_TEXT = (Path(__file__).parent / "look_alikes.txt").read_text(encoding="utf-8")
_WRITTEN = {
    f"{kind} {number}": text
    for kind, texts in re.findall(r"^\[(.*)\]\n((?:.+\n)+)", _TEXT, re.M)
    for number, text in enumerate(texts.splitlines())
}
# Made of numbers, so that they are the same in every run.
_MADE = {
    **{f"uuid {n}": str((uuid5 if n % 2 else uuid3)(NAMESPACE_DNS, str(n))) for n in range(60)},
    **{f"hex {n}": uuid5(NAMESPACE_DNS, f"hex {n}").hex[: 8 + n % 24] for n in range(60)},
}

NEGATIVES = {**_WRITTEN, **_MADE}
