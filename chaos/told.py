"""What callers were told: the record against which everything else is checked."""

from __future__ import annotations

from collections import Counter
from uuid import UUID


class Told:
    """Usage ids by what their callers heard.

    `acked`: recorded. `maybe`: at least one attempt's outcome is unknown, so the unit may be
    recorded whatever else was heard. `lost`: was on a Redis whose disk lost it, which no protocol
    can undo: allowed to be missing, never to count twice. What is in none of them was refused.
    """

    def __init__(self) -> None:
        self.acked: set[bytes] = set()
        self.maybe: set[bytes] = set()
        self.lost: set[bytes] = set()
        self.outcomes: Counter[str] = Counter()
        self._contradictions: list[tuple[bytes, str]] = []

    @property
    def unknown(self) -> int:
        """Units whose callers never learnt what became of them."""
        return len(self.maybe - self.acked)

    def contradict(self, usage_id: bytes, what: str) -> None:
        """Notes an answer that cannot be, unless it is about a unit that a disk has lost."""
        self._contradictions.append((usage_id, what))

    def contradictions(self) -> list[str]:
        """Answers that cannot be, of each sort one example."""
        found: dict[str, list[bytes]] = {}
        for usage_id, what in self._contradictions:
            if usage_id not in self.lost:
                found.setdefault(what, []).append(usage_id)
        return [f"{what}: {len(ids)}: {UUID(bytes=ids[0])}" for what, ids in sorted(found.items())]
