"""Gateway or ledger killed at any await of a correction: it is one record, or none until it is
asked for again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast
from uuid import UUID

import pytest

from ledger import clock, db
from ledger.corrections import Corrections, Wanted
from tests.conftest import Service
from tests.flow.invariants import check
from tests.ledger.crashes import Crash, CrashingConnection, CrashingScripts, Tripwire

USER, WHOLE = "ada", 1000
CAP = 1_000_000
REASON, ACTOR = "counted twice", "finance-dev"

Work = Callable[[Corrections, db.Connection], Awaitable[Any]]


async def used_before(service: Service) -> UUID:
    """The record that is corrected over and over, in the ledger."""
    body = {"user_id": USER, "usage_type": "api_calls", "quantity": WHOLE}
    _, said, _ = await service.post("/usage", body)
    await service.drained()
    return UUID(said["usage_id"])


async def killed(service: Service, wire: Tripwire, work: Work) -> None:
    """Work of a process that dies at this step; Postgres rolls back what it had begun."""
    connection = await db.connect(service.settings.database_url)
    failing = cast(Any, CrashingScripts(service.scripts, wire))
    with suppress(Crash):
        await work(Corrections(failing, CAP), cast(Any, CrashingConnection(connection, wire)))
    await connection.close()


def asks(original: UUID, key: str) -> Work:
    """What the gateway does of one request."""

    async def work(corrections: Corrections, connection: db.Connection) -> None:
        found = await corrections.original(cast(Any, connection), original)
        await corrections.correct(connection, found, Wanted(-1, REASON, key, ACTOR), clock.now())

    return work


async def falls_due(service: Service) -> None:
    await service.sql.execute("UPDATE usage_corrections SET next_attempt_at = NOW()")


async def loop_of_the_ledger(service: Service) -> None:
    """Sends what is owed, drains it, and notes that it is a row."""
    for _ in range(2):
        await falls_due(service)
        await Corrections(service.scripts, CAP).run_once(service.sql, clock.now())
        await service.drained()
    owed = "SELECT COUNT(*) FROM usage_corrections WHERE done_at IS NULL"
    assert await service.sql.fetchval(owed) == 0


async def ask(service: Service, original: UUID, key: str) -> tuple[Any, bool]:
    """The answer over HTTP, and whether it was one of before."""
    body = {"quantity": -1, "reason": REASON, "idempotency_key": key}
    status, said, headers = await service.post(
        f"/usage/{original}/corrections", body, headers=service.token("finance")
    )
    assert status == 201, said
    return said, "Idempotent-Replayed" in headers


async def kept(service: Service) -> int:
    return int(await service.sql.fetchval("SELECT COUNT(*) FROM usage_corrections"))


async def is_once(service: Service, times: int, place: str) -> None:
    """So many corrections, each a row of its own, in quota and ledger."""
    keys = await service.sql.fetch(
        "SELECT idempotency_key, usage_id FROM usage_records WHERE reversal_of IS NOT NULL"
    )
    assert len(keys) == len({row["idempotency_key"] for row in keys}) == times, place
    audited = "SELECT COUNT(*) FROM audit_events WHERE event_type = 'usage_corrected'"
    assert await service.sql.fetchval(audited) == times, place
    _, said, _ = await service.get(f"/quota/{USER}")
    [used] = [one["used"] for one in said["quotas"] if one["usage_type"] == "api_calls"]
    assert used == WHOLE - times, place
    assert await service.sql.fetchval("SELECT COUNT(*) FROM usage_refunds") == 0, place


@pytest.mark.parametrize("repeated", ["after the ledger", "before the ledger"])
async def test_a_gateway_killed_at_any_await_leaves_one_correction(
    service: Service, repeated: str
) -> None:
    original, places = await used_before(service), list[str]()
    while True:
        at = len(places)
        wire, key = Tripwire(at), f"key {at}"
        await killed(service, wire, asks(original, key))
        is_kept = await kept(service) == at + 1
        if repeated == "after the ledger":
            await loop_of_the_ledger(service)
            if is_kept:
                await is_once(service, at + 1, wire.name)
        first, replayed = await ask(service, original, key)
        is_sent = repeated == "after the ledger" or wire.name in ("after correct", "")
        assert replayed == (is_kept and is_sent), wire.name
        await loop_of_the_ledger(service)
        assert await ask(service, original, key) == (first, True), wire.name
        assert first["net_quantity"] == WHOLE - at - 1
        await is_once(service, at + 1, wire.name)
        if not wire.tripped:
            break
        places.append(f"{wire.name}, {'kept' if is_kept else 'not kept'}")
    await check(service)
    assert {
        "before commit, not kept",
        "after commit, kept",
        "before correct, kept",
        "after correct, kept",
    } <= {*places}


async def test_a_ledger_killed_at_any_await_sends_once_what_a_gateway_left(
    service: Service,
) -> None:
    original, places = await used_before(service), list[str]()
    while True:
        at = len(places)
        gateway, key = Tripwire(0, "before correct"), f"key {at}"
        await killed(service, gateway, asks(original, key))
        assert await kept(service) == at + 1

        async def two_rounds(corrections: Corrections, connection: db.Connection) -> None:
            await corrections.run_once(connection, clock.now())
            await service.drained()
            await falls_due(service)
            await corrections.run_once(connection, clock.now())

        await falls_due(service)
        wire = Tripwire(at)
        await killed(service, wire, two_rounds)
        await loop_of_the_ledger(service)
        await is_once(service, at + 1, wire.name)
        assert (await ask(service, original, key))[1], wire.name
        await is_once(service, at + 1, wire.name)
        if not wire.tripped:
            break
        places.append(wire.name)
    await check(service)
    assert {"before correct", "after correct", "before commit", "after commit"} <= {*places}
