"""A change of a subscription reaches every quota that was loaded under its earlier terms."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ledger import db
from ledger.domain.ids import dev_uuid
from ledger.supersede import NewTerms, Superseder, owe
from lua import keys
from lua.connection import RedisUnavailable
from tests.conftest import Service
from tests.flow.invariants import Told, check
from tests.ledger.plans import add_plan, allows, on_plan, organization_on_plan, pool, subscribe

TYPE = "api_calls"


@pytest.fixture
def superseder(service: Service) -> Superseder:
    return Superseder(service.scripts, "basic", service.settings.partitions)


async def change(sql: db.Connection, subscription_id: UUID, **columns: Any) -> int:
    """Changes a subscription and owes the rest, as one transaction; the outbox row."""
    async with sql.transaction():
        for name, value in columns.items():
            await sql.execute(
                f"UPDATE subscriptions SET {name} = $2 WHERE subscription_id = $1",  # noqa: S608
                subscription_id,
                value,
            )
        row = await sql.fetchrow(
            "UPDATE subscriptions SET version = nextval('subscription_versions')"
            " WHERE subscription_id = $1"
            " RETURNING subscription_id, scope, user_id, organization_id, version",
            subscription_id,
        )
        assert row is not None
        return await owe(sql, NewTerms(**dict(row)))


async def recorded(service: Service, user: str, organization: str | None = None) -> Any:
    body = {"user_id": user, "usage_type": TYPE, "quantity": 1}
    status, said, _ = await service.post(
        "/usage", body | ({"organization_id": organization} if organization else {})
    )
    return said["quota_remaining"] if status == 201 else status


async def is_done(service: Service, outbox_id: int) -> bool:
    return bool(
        await service.sql.fetchval(
            "SELECT done_at IS NOT NULL FROM outbox WHERE outbox_id = $1", outbox_id
        )
    )


async def test_the_next_request_of_a_user_is_on_the_new_terms(
    service: Service, superseder: Superseder
) -> None:
    mine = await on_plan(service.sql, "ada", allows(TYPE, "10"))
    assert await recorded(service, "ada") == 9
    version = await add_plan(service.sql, "of_ada", allows(TYPE, "100"))
    row = await change(service.sql, mine, plan_version=version)
    assert await recorded(service, "ada") == 8
    await superseder.send(service.sql, row)
    assert await recorded(service, "ada") == 97


async def test_a_users_own_change_is_found_in_every_organization(
    service: Service, superseder: Superseder
) -> None:
    mine = await on_plan(service.sql, "ada", allows(TYPE, "10"))
    for organization in (None, "north", "south", "east"):
        assert await recorded(service, "ada", organization) == 9
    row = await change(service.sql, mine, status="paused")
    await superseder.send(service.sql, row)
    for organization in (None, "north", "south", "east"):
        assert await recorded(service, "ada", organization) == 403


async def test_an_organizations_change_reaches_all_its_users(
    service: Service, superseder: Superseder
) -> None:
    theirs = await organization_on_plan(service.sql, "acme", pool(TYPE, "100"), allows(TYPE, "5"))
    for user in ("ada", "ben", "cyd"):
        assert await recorded(service, user, "acme") == 4
    version = await add_plan(service.sql, "of_acme", pool(TYPE, "9"), allows(TYPE, "50"))
    row = await change(service.sql, theirs, plan_version=version)
    await superseder.send(service.sql, row)
    assert [await recorded(service, user, "acme") for user in ("ada", "ben", "cyd")] == [5, 4, 3]


async def test_a_first_subscription_ends_the_default_tier(
    service: Service, superseder: Superseder
) -> None:
    before = await recorded(service, "ada")
    await add_plan(service.sql, "large", allows(TYPE, "1000000"))
    mine = await subscribe(service.sql, "large", user="ada")
    row = await change(service.sql, mine)
    await superseder.send(service.sql, row)
    assert before < 100_000 < await recorded(service, "ada")


async def test_a_sender_that_dies_is_finished_by_the_ledger(
    service: Service, superseder: Superseder
) -> None:
    mine = await on_plan(service.sql, "ada", allows(TYPE, "10"))
    await recorded(service, "ada")
    await change(service.sql, mine, status="paused")
    assert await superseder.run_once(service.sql) == 1
    assert await recorded(service, "ada") == 403


async def test_it_is_done_when_the_drain_has_passed_every_entry(
    service: Service, superseder: Superseder
) -> None:
    mine = await on_plan(service.sql, "ada", allows(TYPE, "10"))
    for organization in (None, "north", "south", "east", "west", "up", "down"):
        await recorded(service, "ada", organization)
    row = await change(service.sql, mine, status="paused")
    await superseder.send(service.sql, row)
    waits = await service.sql.fetchval("SELECT awaits FROM outbox WHERE outbox_id = $1", row)
    assert len(waits) > 1
    for partition in waits:
        assert not await is_done(service, row)
        while await service.drain.partition(partition):
            pass
    assert await is_done(service, row)
    told = await service.sql.fetch(
        "SELECT details FROM audit_events WHERE event_type = 'quota_superseded'"
    )
    details = [msgspec.json.decode(one["details"]) for one in told]
    assert sorted(one["partition"] for one in details) == sorted(waits)
    assert {one["subscription_id"] for one in details} == {str(mine)}


async def test_what_a_fail_over_lost_is_sent_again(
    service: Service, superseder: Superseder
) -> None:
    mine = await on_plan(service.sql, "ada", allows(TYPE, "10"))
    await recorded(service, "ada")
    await service.drained()
    row = await change(service.sql, mine, status="paused")
    await superseder.send(service.sql, row)
    await service.redis.run("FLUSHALL")
    assert await superseder.run_once(service.sql) == 0  # not yet: it may be on its way
    await service.sql.execute("UPDATE outbox SET next_attempt_at = NOW()")
    assert await superseder.run_once(service.sql) == 1
    await service.drained()
    assert await is_done(service, row)
    await service.sql.execute("UPDATE outbox SET next_attempt_at = NOW()")
    assert await superseder.run_once(service.sql) == 0


class PartLost:
    """Scripts of a cluster that has lost the server of some partitions."""

    def __init__(self, service: Service) -> None:
        self._scripts = service.scripts
        self.lost: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scripts, name)

    async def supersede(self, partition: int, *args: Any, **named: Any) -> Any:
        if partition in self.lost:
            raise RedisUnavailable("connection refused", outcome_unknown=False)
        return await self._scripts.supersede(partition, *args, **named)


async def test_a_server_that_is_lost_keeps_a_change_from_no_other(service: Service) -> None:
    scripts = PartLost(service)
    superseder = Superseder(scripts, "basic", service.settings.partitions)  # type: ignore[arg-type]
    mine = await on_plan(service.sql, "ada", allows(TYPE, "10"))
    others = await on_plan(service.sql, "ben", allows(TYPE, "10"))
    organizations = [None, "north", "south", "east", "west", "up", "down"]
    for organization in organizations:
        await recorded(service, "ada", organization)
    await recorded(service, "ben")
    row = await change(service.sql, mine, status="paused")
    who = b"u" + dev_uuid("ada").bytes
    scripts.lost = {keys.partition_of(who, service.settings.partitions)}
    assert scripts.lost.isdisjoint(
        {keys.partition_of(b"u" + dev_uuid("ben").bytes, service.settings.partitions)}
    )
    await change(service.sql, others, status="paused")
    assert await superseder.run_once(service.sql) == 2
    answers = [await recorded(service, "ada", one) for one in organizations]
    assert {403} < set(answers)  # all but those of the server that is lost
    assert await recorded(service, "ben") == 403
    scripts.lost = set()
    await service.sql.execute("UPDATE outbox SET next_attempt_at = NOW()")
    await superseder.run_once(service.sql)
    assert {await recorded(service, "ada", one) for one in organizations} == {403}
    await service.drained()
    assert await is_done(service, row)


async def test_entries_that_are_drained_twice_harm_nothing(
    service: Service, superseder: Superseder
) -> None:
    mine = await on_plan(service.sql, "ada", allows(TYPE, "10"))
    row = await change(service.sql, mine)
    for _ in range(2):
        await superseder.send(service.sql, row)
        await service.sql.execute("UPDATE outbox SET next_attempt_at = NOW()")
    await service.drained()
    assert await is_done(service, row)


async def test_what_somebody_is_sending_is_left_to_them(
    service: Service, superseder: Superseder
) -> None:
    mine = await on_plan(service.sql, "ada", allows(TYPE, "10"))
    row = await change(service.sql, mine)
    await superseder.send(service.sql, row)
    await superseder.send(service.sql, row)
    [partition] = await service.sql.fetchval("SELECT awaits FROM outbox WHERE outbox_id = $1", row)
    assert len((await service.scripts.read(partition, after="0-0", count=9)).entries) == 1


async def test_a_control_entry_that_cannot_be_read_is_parked(service: Service) -> None:
    user = b"u" + dev_uuid("ada").bytes
    await recorded(service, "ada")
    await service.drained()
    partition = service.settings.partitions - 1
    for said in (b"", b"\x93\x01", msgspec.msgpack.encode(("supersede", 1, b"short", 1))):
        await service.scripts.supersede(partition, {user: 1}, control=said)
    await service.drained()
    reasons = await service.sql.fetch("SELECT DISTINCT reason FROM dead_letters")
    assert [one["reason"] for one in reasons] == ["control entry is malformed"]


async def test_no_event_is_admitted_under_terms_that_have_been_answered_as_changed(
    service: Service, superseder: Superseder
) -> None:
    """Changes at random moments under load: in the stream, every event after a change's entry
    carries its plan version or a later one, and every event counts once."""
    theirs = await organization_on_plan(service.sql, "acme", pool(TYPE, None), allows(TYPE, None))
    mine = await on_plan(service.sql, "solo", allows(TYPE, None))
    stop, told = asyncio.Event(), Told()
    recorded: asyncio.Queue[None] = asyncio.Queue()

    async def load(user: str, organization: str | None) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            body = {"user_id": user, "usage_type": TYPE, "quantity": 1,
                    "idempotency_key": f"{user}-{number}"}  # fmt: skip
            if organization:
                body["organization_id"] = organization
            status, said, _ = await service.post("/usage", body)
            assert status == 201, said
            told.acked.add(UUID(said["usage_id"]))
            recorded.put_nowait(None)

    callers = [load(f"u{one}", "acme") for one in range(6)] + [load("solo", None)]
    tasks = [asyncio.create_task(one) for one in callers]
    for tier, subscription in [("of_acme", theirs), ("of_solo", mine)] * 6:
        version = await add_plan(service.sql, tier, pool(TYPE, None), allows(TYPE, None))
        row = await change(service.sql, subscription, plan_version=version)
        await superseder.send(service.sql, row)
        for _ in range(recorded.qsize() + 20):
            await recorded.get()
    stop.set()
    await asyncio.gather(*tasks)
    await service.drained()
    await check(service, told)
    assert await service.sql.fetchval("SELECT COUNT(DISTINCT plan_version) FROM usage_records") > 6
    assert not await service.sql.fetch(
        """
        WITH changes AS (
            SELECT (details ->> 'partition')::INT AS partition, details ->> 'stream_id' AS at,
                   (details ->> 'subscription_id')::UUID AS subscription_id,
                   ROW_NUMBER() OVER (PARTITION BY details ->> 'subscription_id'
                       ORDER BY string_to_array(details ->> 'stream_id', '-')::BIGINT[]) + 1
                       AS plan_version
            FROM audit_events WHERE event_type = 'quota_superseded')
        SELECT 1 FROM changes c JOIN usage_records r USING (partition, subscription_id)
        WHERE string_to_array(r.stream_id, '-')::BIGINT[] > string_to_array(c.at, '-')::BIGINT[]
          AND r.plan_version < c.plan_version
        """
    )
