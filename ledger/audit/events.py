"""The chain of audit events, recomputed from their rows."""

from __future__ import annotations

from ledger import store
from ledger.audit.findings import Findings
from ledger.db import Connection
from ledger.domain.audit import CONTROL, FIRST_HEAD, VERSION, link
from ledger.store.audit import ControlHead


class Checked:
    """How far a chain was looked at, and what was found."""

    def __init__(self, chain: str, at: int, head: bytes) -> None:
        self.findings = Findings(chain)
        self.first = at + 1
        self.at, self.head = at, head
        self.rows = 0


async def check(
    connection: Connection,
    after: ControlHead = ControlHead(0, FIRST_HEAD),  # noqa: B008 - a constant
    most: int | None = None,
    page: int = store.audit.PAGE,
) -> Checked:
    """Recomputes the events after a place that is known to be whole, at most so many, and compares
    the last with the chain's head. Within a transaction."""
    checked = Checked(CONTROL, *after)
    found = checked.findings
    async for event, said in store.audit.sealed(connection, after.sequence, page):
        if most is not None and checked.rows >= most:
            return checked
        place, event_id = said.sequence, event.event_id
        found.missing(checked.at + 1, place - 1, "the event is missing")
        if said.version != VERSION:
            found.add(place, f"says it was sealed by version {said.version}", event_id)
        elif link(event, place, said.previous).hash != said.hash:
            found.add(place, "was changed since it was sealed", event_id)
        if said.previous != checked.head and place == checked.at + 1:
            found.add(place, "does not follow the event before it", event_id)
        checked.at, checked.head = place, said.hash
        checked.rows += 1
    await _compare_head(connection, checked)
    return checked


async def _compare_head(connection: Connection, checked: Checked) -> None:
    head, found = await store.audit.head(connection), checked.findings
    if head is None:
        found.add(None, "the chain has no head: its row in audit_chains is gone")
        return
    found.missing(checked.at + 1, head.sequence, "the event is missing")
    if head.sequence < checked.at:
        found.add(checked.at, f"comes after the chain's head, which is at {head.sequence}")
    elif head.sequence == checked.at and head.head != checked.head:
        found.add(checked.at, "is not the event that the chain's head was made of")
