"""What is asked all the time reads little, however much there is: by the plans of Postgres."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import pytest

from ledger import clock, db
from ledger.store.queries import QUERIES

NOW = clock.now()
ASKED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "resume_stripe_unless_refused": ("using stripe_calls_key_refused on", ()),
    "forget_stripe_events": ("using stripe_events_done on", (NOW, 10)),
    "to_meter": (
        r"Index Cond: \(+subscription_id = ANY ",
        (["api_calls"], NOW, 10, [UUID(int=1)]),
    ),
}


@pytest.mark.parametrize("name", ASKED)
async def test_a_large_table_is_not_read_from_end_to_end(
    connection: db.Connection, name: str
) -> None:
    wanted, values = ASKED[name]
    # Where there are few rows Postgres would rather read them all.
    await connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
    rows = await connection.fetch(f"EXPLAIN {QUERIES[name]}", *values)
    assert re.search(wanted, "\n".join(row[0] for row in rows))
