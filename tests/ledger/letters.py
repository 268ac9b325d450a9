"""Dead letters, made and settled by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from ledger import db
from ledger.dead_letters import DeadLetters
from lua.scripts import Scripts

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
REFUSED = 13  # the quantity that `refuse` forbids


def decider(sql: db.Connection, scripts: Scripts) -> DeadLetters:
    return DeadLetters(sql, scripts, actor="olga", at=NOON)


async def refuse(sql: db.Connection) -> None:
    rule = f"CHECK (quantity <> {REFUSED}) NOT VALID"
    await sql.execute(f"ALTER TABLE usage_records ADD CONSTRAINT unforeseen {rule}")


async def accept(sql: db.Connection) -> None:
    await sql.execute("ALTER TABLE usage_records DROP CONSTRAINT unforeseen")


async def events(sql: db.Connection) -> list[tuple[str, str, dict[str, Any]]]:
    rows = await sql.fetch("SELECT * FROM audit_events WHERE actor <> 'ledger' ORDER BY event_id")
    assert all(row["occurred_at"] == NOON for row in rows)
    return [(row["event_type"], row["actor"], msgspec.json.decode(row["details"])) for row in rows]
