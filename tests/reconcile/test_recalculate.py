"""Recalculate makes everything that is counted under an id anew from the rows."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import msgspec
import pytest

from ledger import db
from ledger.domain.ids import dev_uuid
from ledger.recalculate import Recalculated, recalculate
from tests.reconcile.conftest import Compared
from tests.reconcile.test_reconcile import add_to_counter, quota_of

OPERATOR = "operator"


async def redo(compared: Compared, name: str) -> Recalculated:
    service = compared.service
    connection = await db.connect(service.settings.database_url)
    try:
        return await recalculate(
            connection,
            service.redis,
            dev_uuid(name),
            partitions=service.settings.partitions,
            actor=OPERATOR,
        )
    finally:
        await connection.close()


async def used(compared: Compared, path: str) -> int:
    _, said, _ = await compared.service.get(f"/quota/{path}")
    [calls] = [one for one in said["quotas"] if one["usage_type"] == "api_calls"]
    return int(calls["used"])


async def test_totals_and_counters_are_made_anew_and_what_was_wrong_is_told(
    compared: Compared,
) -> None:
    await compared.some()
    await compared.service.drained()
    await compared.some()  # not drained: part of the quota all the same
    await compared.sql.execute("UPDATE usage_totals SET quantity = 99, records = 1")
    await add_to_counter(compared, quota_of(compared, "ada"), 7)
    done = await redo(compared, "ada")
    acme, ada = dev_uuid("acme"), dev_uuid("ada")
    assert sorted(done.subjects) == [f"org:{acme}:user:{ada}", f"user:{ada}"]
    assert any("Redis says 19 units" in line for line in done.wrong)
    assert any("the total says 99, the rows 6" in line for line in done.wrong)
    assert await used(compared, "ada") == await used(compared, "ada?organization_id=acme") == 12
    await redo(compared, "acme")
    await redo(compared, "bob")
    await compared.service.drained()
    assert await compared.found() == []


async def test_an_organization_means_its_pool_and_every_member(compared: Compared) -> None:
    await compared.some()
    await compared.service.drained()
    acme = dev_uuid("acme")
    members = [f"org:{acme}:user:{dev_uuid(user)}" for user in ("ada", "bob")]
    assert sorted((await redo(compared, "acme")).subjects) == sorted([f"org:{acme}", *members])


async def test_a_total_without_rows_becomes_nothing(compared: Compared) -> None:
    await compared.some()
    await compared.service.drained()
    await compared.sql.execute(
        "INSERT INTO usage_totals SELECT subject, 'ai_tokens', quota_period, 5, 1"
        " FROM usage_totals WHERE subject LIKE 'user:%'"
    )
    await redo(compared, "ada")
    wrong = "SELECT subject FROM usage_totals WHERE usage_type = 'ai_tokens' AND quantity <> 0"
    assert await compared.sql.fetch(wrong) != []  # bob's
    await redo(compared, "bob")
    assert await compared.sql.fetch(wrong) == []
    assert await compared.found() == []


async def test_a_total_that_is_gone_is_made_from_the_rows(compared: Compared) -> None:
    await compared.some()
    await compared.service.drained()
    await compared.sql.execute("DELETE FROM usage_totals")
    for name in ("ada", "bob", "acme"):
        assert (await redo(compared, name)).subjects != []
    assert await used(compared, "ada") == 6
    assert await compared.found() == []


async def test_it_is_audited_with_who_did_it(compared: Compared) -> None:
    await compared.some()
    await compared.service.drained()
    await redo(compared, "ada")
    events = await compared.sql.fetch("SELECT event_type, actor, details FROM audit_events")
    assert {(one["event_type"], one["actor"]) for one in events} == {
        ("quota_recalculated", OPERATOR)
    }
    assert all(str(dev_uuid("ada")) in one["details"] for one in events)


async def test_an_id_that_nothing_is_counted_under_changes_nothing(compared: Compared) -> None:
    await compared.some()
    assert (await redo(compared, str(uuid4()))).subjects == []
    assert await compared.sql.fetchval("SELECT COUNT(*) FROM audit_events") == 0


async def test_traffic_goes_on_meanwhile_and_not_a_unit_is_lost(compared: Compared) -> None:
    await compared.some()
    busy = True

    async def use() -> None:
        while busy:
            await compared.record("ada", 1)

    async def drain() -> None:
        while busy:
            await compared.service.drained()
            await asyncio.sleep(0)

    work = [asyncio.create_task(use()), asyncio.create_task(drain())]
    try:
        for _ in range(20):
            assert [one for one in (await redo(compared, "ada")).wrong] == []
    finally:
        busy = False
        await asyncio.gather(*work)
    await compared.service.drained()
    assert await compared.found() == []


async def test_a_large_organization_is_made_anew_a_few_members_at_a_time_under_traffic(
    compared: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cursor row is let go in between, and each part is whole by itself."""
    monkeypatch.setattr("ledger.recalculate.CHUNK", 2)
    users = [f"user {number}" for number in range(6)]
    for user in users:
        await compared.record(user, 3, organization_id="acme")
    await compared.service.drained()
    await compared.sql.execute("UPDATE usage_totals SET quantity = 99 WHERE records = 1")
    busy, recorded = True, 0

    async def use() -> None:
        nonlocal recorded
        while busy:
            await compared.record(users[recorded % 6], 1, organization_id="acme")
            recorded += 1

    async def drain() -> None:
        while busy:
            await compared.service.drained()
            await asyncio.sleep(0)

    work = [asyncio.create_task(use()), asyncio.create_task(drain())]
    try:
        done = await redo(compared, "acme")
    finally:
        busy = False
        await asyncio.gather(*work)
    assert len(done.subjects) == 1 + 6
    assert sum("the total says" in line for line in done.wrong) == 6
    events = await compared.sql.fetch("SELECT details FROM audit_events ORDER BY occurred_at")
    told = [msgspec.json.decode(one["details"]) for one in events]
    assert [len(one["subjects"]) for one in told] == [2, 2, 2, 1]
    assert [subject for one in told for subject in one["subjects"]] == done.subjects
    await compared.service.drained()
    assert await compared.found() == []
    used_by_all = await compared.sql.fetchval("SELECT SUM(quantity) FROM usage_records")
    assert used_by_all == 6 * 3 + recorded
