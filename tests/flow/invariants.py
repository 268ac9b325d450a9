"""What must hold at every moment of rest, asserted; `chaos.check` says what that is."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from chaos.check import System, undrained_entries, violations
from ledger import store
from lua.packing import unpack_said
from tests.conftest import Service


class Told:
    """What callers were told: the ids that were acknowledged, and how many cannot be known."""

    def __init__(self) -> None:
        self.acked: set[UUID] = set()
        self.unknown = 0

    def heard(self, answer: tuple[int, Any, dict[str, str]]) -> int:
        status, said, _ = answer
        if status == 201:
            self.acked.add(UUID(said["usage_id"]))
        elif status == 503 and said.get("outcome") == "unknown":
            self.unknown += 1
        return status


async def check(service: Service, told: Told | None = None) -> None:
    """Checks every invariant; undrained entries count as recorded."""
    system = System(service.sql, service.redis, service.scripts)
    if told is not None:
        await _acknowledged_is_recorded(system, told)
    found = await violations(system)
    assert found == [], found


async def _acknowledged_is_recorded(system: System, told: Told) -> None:
    """These callers know how many outcomes are unknown, not which: less than `chaos` asks."""
    rows = await system.sql.fetch("SELECT usage_id FROM usage_keys")
    letters = [one async for one in store.dead_letters(system.sql, settled=True)]
    parked = [one.fields for one in letters if one.units is not None]
    recorded = {row["usage_id"] for row in rows} | {
        UUID(bytes=unpack_said(one["event"]).usage_id)
        for one in await undrained_entries(system) + parked
    }
    assert told.acked <= recorded, "I1: acknowledged, but not recorded"
    assert len(recorded - told.acked) <= told.unknown, "I1: recorded, but never acknowledged"
