"""Gives audit events their places in the chain, a moment after they were committed.

1. lock   the chain's head: one sealer at a time, so the chain cannot fork
2. read   events without a place, by the time at which their transactions began
3. link   each to the hash before it; write places and hashes, move the head; commit

The transactions that write events take no lock for it and do not wait for each other. One that
commits late gets a place after others that began after it: places are the order of the chain, not
of what happened (`occurred_at`). A crash before the commit leaves the events for the next time.
"""

from __future__ import annotations

from ledger import store
from ledger.db import Connection
from ledger.domain.audit import Event, Link, link

BATCH = 500  # events at once: some 20 ms, in which nobody waits


class Sealer:
    def __init__(self, connection: Connection) -> None:
        self._db = connection

    async def run_once(self) -> int:
        """Seals the events that wait, at most a batch; how many. 0 as well while another does."""
        async with self._db.transaction():
            head = await store.audit.lock_head(self._db)
            if head is None:
                return 0
            waiting = await store.audit.unsealed(self._db, BATCH)
            sealed: list[tuple[Event, Link]] = []
            sequence, previous = head
            for event in waiting:
                made = link(event, sequence + 1, previous)
                sealed.append((event, made))
                sequence, previous = made.sequence, made.hash
            if sealed:
                await store.audit.seal(self._db, sealed)
                await store.audit.set_head(self._db, sealed[-1][1])
            return len(sealed)
