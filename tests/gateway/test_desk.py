"""Lists and changes have connections of their own."""

from __future__ import annotations

import asyncio

from gateway.app import DESK_CONNECTIONS, POSTGRES_CONNECTIONS
from ledger import db
from tests.conftest import Service

WAITING = (
    "SELECT COUNT(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


async def test_who_waits_for_a_list_keeps_no_cold_account_from_being_loaded(
    service: Service,
) -> None:
    headers = service.token("finance")
    async with db.pool(service.settings.database_url, 1) as pool, pool.acquire() as connection:
        held = connection.transaction()
        await held.start()
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        await connection.execute("LOCK TABLE organizations IN ACCESS EXCLUSIVE MODE")
        lists = [
            asyncio.ensure_future(service.get("/organizations", headers=headers))
            for _ in range(2 * POSTGRES_CONNECTIONS)
        ]
        try:
            while await service.sql.fetchval(WAITING) < DESK_CONNECTIONS:  # noqa: ASYNC110 - Postgres has no event
                await asyncio.sleep(0)
            status, said, _ = await service.post(
                "/usage", {"user_id": "cold", "usage_type": "api_calls", "quantity": 1}
            )
        finally:
            await held.rollback()
            answers = await asyncio.gather(*lists)
        assert status == 201, said
        assert {status for status, _, _ in answers} == {200}
