"""What does not fit in a chain."""

from __future__ import annotations

import msgspec

MOST = 100  # findings of a chain that are told one by one: a broken chain has as many as rows


class Finding(msgspec.Struct, frozen=True):
    """`sequence`: the place in the chain, of usage the record's position; `id` of the record or
    event, None where there is no row any more."""

    chain: str
    sequence: int | None
    id: str | None
    what: str

    @property
    def place(self) -> str:
        said = [self.chain]
        said += [] if self.sequence is None else [str(self.sequence)]
        said += [] if self.id is None else [f"({self.id})"]
        return " ".join(said)

    @property
    def said(self) -> str:
        return f"{self.place}: {self.what}"


class Findings:
    """Those of one chain; the first of them one by one."""

    def __init__(self, chain: str) -> None:
        self.chain = chain
        self._found: list[Finding] = []
        self._more = 0

    def add(self, sequence: int | None, what: str, row_id: object = None) -> None:
        if len(self._found) < MOST:
            known = None if row_id is None else str(row_id)
            self._found.append(Finding(self.chain, sequence, known, what))
        else:
            self._more += 1

    def missing(self, first: int, last: int, what: str) -> None:
        """Places from one to another, inclusive; however many, one finding."""
        if first <= last:
            others = "" if first == last else f", and so are all up to {last}"
            self.add(first, f"{what}{others}")

    @property
    def all(self) -> list[Finding]:
        if not self._more:
            return self._found
        return [*self._found, Finding(self.chain, None, None, f"and {self._more} more like these")]
