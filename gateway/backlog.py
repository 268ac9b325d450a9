"""How full the streams are with what is not drained: said long before usage is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import structlog

from gateway import metrics

log = structlog.get_logger()

STALLED_S = 60  # a ledger that works moves on within a second, one that was restarted within a few
WARN_AT = 2  # one part in so many of the cap: as much time is left as has passed


class Backlog:
    """Undrained entries against `cap`, at which a partition takes no more usage."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._said: list[str] = []  # as last logged
        self._still: dict[int, tuple[str, float]] = {}  # cursors, and since when they were seen so

    def reasons(self, undrained: Mapping[int, int]) -> list[str]:
        """What is wrong with these entries of each partition; logged when it changes."""
        metrics.BACKLOG.set(max(undrained.values(), default=0) / self._cap)
        found = list(self._found(undrained))
        if found != self._said:
            self._said = found
            say = log.warning if found else log.info
            say("backlog", reasons=found)
        return found

    def stalled(
        self, undrained: Mapping[int, int], cursors: Mapping[int, str], now: float
    ) -> Iterator[str]:
        """Partitions whose entries wait while the cursor stands still. A few entries that nobody
        drains would otherwise first be missed on an invoice. `now` is monotonic, in seconds."""
        before = self._still
        self._still = {
            one: before[one] if one in before and before[one][0] == cursor else (cursor, now)
            for one, cursor in cursors.items()
            if undrained.get(one)
        }
        found = [str(one) for one, (_, since) in self._still.items() if now - since > STALLED_S]
        if found:
            yield (
                f"partitions {', '.join(found)} are not drained at all: "
                "partition_stopped in the ledger's log says why"
            )

    def _found(self, undrained: Mapping[int, int]) -> Iterator[str]:
        full = [str(one) for one, entries in undrained.items() if entries >= self._cap]
        warned = [str(one) for one, entries in undrained.items() if entries * WARN_AT >= self._cap]
        filling = [one for one in warned if one not in full]
        if full:
            yield f"partitions {', '.join(full)} take no usage: the ledger is UNDRAINED_CAP behind"
        if filling:
            yield f"partitions {', '.join(filling)} are half full: the ledger does not keep up"
