"""How the evidence is: what operators are told of it, in metrics, readiness and `doctor`."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ledger import store
from ledger.db import Executor
from ledger.store.audit import State as Sealing
from ledger.store.audit_deliveries import State as Delivered

UNSEALED_S = 60  # a ledger seals every second; an outage that is over is no news
UNDELIVERED_S = 900  # three of the longest pauses between two tries


class Audit(msgspec.Struct, frozen=True):
    """`sealing` of events, and `delivered`: what the audit service has of all chains."""

    sealing: Sealing
    delivered: Delivered

    def reasons(self) -> Iterator[str]:
        """What needs a person."""
        if self.sealing.oldest_s > UNSEALED_S:
            yield (
                f"audit events wait to be sealed: {self.sealing.unsealed}; is a ledger running, "
                "and what does ./run audit verify say?"
            )
        if self.delivered.failing_s > UNDELIVERED_S:
            minutes = self.delivered.failing_s // 60
            yield (
                f"the audit service takes nothing for {minutes} minutes: "
                f"{self.delivered.waiting} events wait"
            )


async def look(db: Executor) -> Audit:
    """As the ledger has it now."""
    return Audit(await store.audit.state(db), await store.audit_deliveries.state(db))
