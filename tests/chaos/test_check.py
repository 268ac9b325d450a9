"""The checker finds damage of each kind; what it never found would prove nothing."""
# ruff: noqa: S608 - the statements are put together of our own text

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from chaos import check
from chaos.check import System, seals_fit
from chaos.told import Told
from tests.conftest import Service
from tests.ledger.plans import allows, organization_on_plan, pool

RECORDS = 12


@pytest.fixture
async def told(service: Service) -> Told:
    """A sound system with a few records of two users in an organisation, all drained, and what
    their callers were told."""
    await organization_on_plan(
        service.sql, "clinic", allows("api_calls", "100"), pool("api_calls", "150")
    )
    told = Told()
    for number in range(RECORDS):
        told.acked.add(await recorded(service, number))
    await service.drained()
    return told


async def recorded(service: Service, number: int) -> bytes:
    usage = {
        "user_id": f"user-{number % 2}",
        "organization_id": "clinic",
        "usage_type": "api_calls",
        "quantity": 2,
        "idempotency_key": f"key-{number}",
    }
    status, said, _ = await service.post("/usage", usage)
    assert status == 201
    return UUID(said["usage_id"]).bytes


async def found(service: Service, told: Told) -> list[str]:
    system = System(service.sql, service.redis, service.scripts)
    return [
        *await check.violations(system, told),
        *await check.nothing_was_set_aside(service.sql),
        *await check.losses_are_audited(service.sql),
        *await check.no_time_but_that_of_redis(service.sql),
    ]


def sql(*statements: str) -> Callable[[Service, Told], Awaitable[object]]:
    async def damage(service: Service, told: Told) -> None:
        for one in statements:
            assert not (await service.sql.execute(one)).endswith(" 0")

    return damage


async def counter(service: Service, name: str) -> str:
    keys: list[bytes] = await service.redis.run("KEYS", f"quota:*{name}")
    return keys[0].decode()


async def one_unit_more_in_redis(service: Service, told: Told) -> None:
    key = await counter(service, ":user:*")
    await service.redis.run("HINCRBY", key, "used:api_calls", 1)


async def one_unit_less_in_redis(service: Service, told: Told) -> None:
    keys: list[bytes] = await service.redis.run("KEYS", "quota:*")
    [pool_key] = [key.decode() for key in keys if b":user:" not in key]
    await service.redis.run("HINCRBY", pool_key, "used:api_calls", -1)


async def an_id_that_is_nowhere(service: Service, told: Told) -> None:
    told.acked.add(uuid4().bytes)


async def a_record_that_was_refused(service: Service, told: Told) -> None:
    told.acked.pop()


async def an_undrained_entry_is_gone(service: Service, told: Told) -> None:
    told.acked.add(await recorded(service, RECORDS))
    for stream in await service.redis.run("KEYS", "usage:*"):
        [[last, _]] = await service.redis.run("XREVRANGE", stream, "+", "-", "COUNT", 1)
        await service.redis.run("XDEL", stream, last)


async def a_loss_that_nobody_audited(service: Service, told: Told) -> None:
    await service.redis.run("FLUSHALL")
    while await check.losses_are_audited(service.sql) or not await service.sql.fetchval(
        "SELECT MAX(epoch) > 1 FROM stream_cursor"
    ):
        await service.drained()
    await service.sql.execute("DELETE FROM audit_events")


FIRST = "(SELECT usage_id FROM usage_records ORDER BY position LIMIT 1)"
LAST = "(SELECT usage_id FROM usage_records ORDER BY position DESC LIMIT 1)"

DAMAGE: list[tuple[str, Callable[[Service, Told], Awaitable[Any]]]] = [
    ("I1: acknowledged", an_id_that_is_nowhere),
    ("I1: acknowledged", an_undrained_entry_is_gone),
    ("I1: recorded, but nobody", a_record_that_was_refused),
    (
        "I1: acknowledged",
        sql(
            f"DELETE FROM usage_keys WHERE usage_id = {FIRST}",
            f"DELETE FROM usage_records WHERE usage_id = {FIRST}",
        ),
    ),
    ("I2", sql(f"DELETE FROM usage_records WHERE usage_id = {FIRST}")),
    ("I2", sql(f"DELETE FROM usage_keys WHERE usage_id = {FIRST}")),
    (
        "I2",
        sql(
            f"CREATE TEMP TABLE doubled AS SELECT * FROM usage_records WHERE usage_id = {FIRST}",
            "UPDATE doubled SET recorded_at = recorded_at + INTERVAL '1 ms', position = 1000",
            "INSERT INTO usage_records SELECT * FROM doubled",
        ),
    ),
    ("totals", sql("UPDATE usage_totals SET quantity = quantity + 1")),
    ("totals", sql("UPDATE usage_totals SET records = records - 1")),
    ("totals", sql(f"UPDATE usage_records SET quantity = 1 WHERE usage_id = {LAST}")),
    ("I3", one_unit_more_in_redis),
    ("I3", one_unit_less_in_redis),
    (
        "I6",
        sql("INSERT INTO billable_usage VALUES (gen_random_uuid(), NOW(), 'pro', 1, 'x', 0, 1, 1)"),
    ),
    ("I3", sql("UPDATE usage_totals SET quantity = quantity - 2 WHERE subject LIKE '%user%'")),
    ("I4", sql(f"UPDATE usage_records SET used_after = 101 WHERE usage_id = {LAST}")),
    ("I4", sql(f"UPDATE usage_records SET pool_used_after = 151 WHERE usage_id = {LAST}")),
    ("I5", sql(f"UPDATE usage_records SET used_after = used_after + 1 WHERE usage_id = {FIRST}")),
    ("I5", sql(f"UPDATE usage_records SET pool_used_after = 3 WHERE usage_id = {LAST}")),
    ("I9: the seals", sql(f"UPDATE usage_records SET quantity = 3 WHERE usage_id = {FIRST}")),
    ("I9: the seals", sql(f"UPDATE usage_records SET recorded_by = 'x' WHERE usage_id = {LAST}")),
    ("I9: the seals", sql(f"DELETE FROM usage_records WHERE usage_id = {LAST}")),
    ("I9: the seals", sql("UPDATE audit_seals SET head = sha256('x')")),
    ("I9: the seals", sql("UPDATE audit_seals SET previous = sha256('x')")),
    ("I9: the seals", sql("DELETE FROM audit_seals")),
    ("I9: the seals", sql("UPDATE stream_cursor SET audit_head = sha256('x')")),
    (
        "recorded in the future",
        sql(
            "UPDATE usage_records SET recorded_at = NOW() + INTERVAL '59 minutes'"
            f" WHERE usage_id = {LAST}"
        ),
    ),
    ("I9: a loss", a_loss_that_nobody_audited),
    (
        "dead_letters",
        sql(
            "INSERT INTO dead_letters (partition, stream_id, entry, reason)"
            " VALUES (0, '1-1', '{}', 'x')"
        ),
    ),
    (
        "usage_refunds",
        sql(
            "INSERT INTO usage_refunds (usage_id, partition, subject, usage_type, quota_period,"
            " units, stream_id) VALUES (gen_random_uuid(), 0, 'user:x', 'api_calls', NOW(), 1,"
            " '1-1')"
        ),
    ),
]


async def test_a_sound_system_has_nothing_wrong(service: Service, told: Told) -> None:
    assert await found(service, told) == []
    told.acked.add(await recorded(service, RECORDS))
    assert await found(service, told) == [], "undrained entries count as recorded"


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
async def test_damage_is_found(
    service: Service, told: Told, name: str, damage: Callable[[Service, Told], Awaitable[Any]]
) -> None:
    await damage(service, told)
    assert [one for one in await found(service, told) if name in one]


async def test_what_a_disk_lost_may_be_missing_and_nothing_else(
    service: Service, told: Told
) -> None:
    gone, other = uuid4().bytes, uuid4().bytes
    told.acked |= {gone, other}
    told.lost.add(gone)
    [line] = await found(service, told)
    assert str(UUID(bytes=other)) in line
    assert str(UUID(bytes=gone)) not in line


async def test_a_chain_that_was_checked_is_checked_on_from_there(
    service: Service, told: Told
) -> None:
    chains: check.Chains = {}
    assert await seals_fit(service.sql, chains) == []
    await recorded(service, RECORDS)
    await service.drained()
    await service.sql.execute(f"UPDATE usage_records SET quantity = 3 WHERE usage_id = {LAST}")
    assert len(await seals_fit(service.sql, chains)) == 1


def test_an_answer_that_cannot_be_is_reported_unless_a_disk_lost_the_unit() -> None:
    told = Told()
    told.contradict(b"a" * 16, "answered 500")
    told.contradict(b"b" * 16, "answered 500")
    told.lost.add(b"a" * 16)
    assert told.contradictions() == [f"answered 500: 1: {UUID(bytes=b'b' * 16)}"]
