"""How full the streams are with what is not drained: said long before usage is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import structlog

from gateway import metrics

log = structlog.get_logger()

WARN_AT = 2  # one part in so many of the cap: as much time is left as has passed


class Backlog:
    """Undrained entries against `cap`, at which a partition takes no more usage."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._said: list[str] = []  # as last logged

    def reasons(self, undrained: Mapping[int, int]) -> list[str]:
        """What is wrong with these entries of each partition; logged when it changes."""
        metrics.BACKLOG.set(max(undrained.values(), default=0) / self._cap)
        found = list(self._found(undrained))
        if found != self._said:
            self._said = found
            say = log.warning if found else log.info
            say("backlog", reasons=found)
        return found

    def _found(self, undrained: Mapping[int, int]) -> Iterator[str]:
        full = [str(one) for one, entries in undrained.items() if entries >= self._cap]
        warned = [str(one) for one, entries in undrained.items() if entries * WARN_AT >= self._cap]
        filling = [one for one in warned if one not in full]
        if full:
            yield f"partitions {', '.join(full)} take no usage: the ledger is UNDRAINED_CAP behind"
        if filling:
            yield f"partitions {', '.join(filling)} are half full: the ledger does not keep up"
