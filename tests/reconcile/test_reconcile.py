"""Reconcile finds every kind of damage, says what it is, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from ledger import clock, store
from ledger.domain.ids import dev_uuid
from ledger.store.reconcile import Found
from lua import keys
from lua.keys import Account
from tests.ledger.plans import add_plan, allows, on_plan
from tests.reconcile.conftest import Compared

ADA = dev_uuid("ada")


def quota_of(compared: Compared, user: str, organization: str | None = None) -> str:
    who = Account(dev_uuid(user), dev_uuid(organization) if organization else None).who
    return keys.quota(keys.partition_of(who, compared.service.settings.partitions), who)


async def add_to_counter(compared: Compared, key: str, units: int) -> None:
    await compared.service.redis.run("HINCRBY", key, "used:api_calls", units)


async def test_what_is_recorded_drained_and_undrained_agrees(compared: Compared) -> None:
    await compared.some()
    await compared.service.drained()
    await compared.some()
    report = await compared.whole()
    assert (report.findings, report.skipped) == ([], [])
    assert report.compared["I2"] == report.compared["I9"] == 12
    assert report.compared["I3"] == 5 * 4  # two users, two members, a pool; four usage types each


async def test_a_counter_that_is_one_unit_off_is_found_repaired_and_audited(
    compared: Compared,
) -> None:
    await compared.some()
    await compared.service.drained()
    await add_to_counter(compared, quota_of(compared, "ada"), 1)
    [(invariant, what)] = await compared.found()
    assert invariant == "I3"
    assert what.startswith(f"user:{ADA} api_calls since ")
    assert what.endswith("Redis says 7 units, the ledger 6")
    [finding] = (await compared.whole(repair=True)).findings
    assert finding.repaired
    event = await compared.sql.fetchrow("SELECT * FROM audit_events")
    assert event is not None
    assert (event["event_type"], event["actor"]) == ("quota_repaired", "reconcile")
    assert what in event["details"]
    await compared.record("ada", 1)
    await compared.service.drained()
    row = await compared.sql.fetchrow("SELECT * FROM usage_records ORDER BY recorded_at DESC")
    assert row is not None and row["used_after"] == 7
    assert await compared.found() == []


async def test_a_pool_and_its_members_are_compared_each(compared: Compared) -> None:
    await compared.some()
    for user, units in (("ada", 1), ("bob", -1)):
        await add_to_counter(compared, quota_of(compared, user, "acme"), units)
    whats = [what for _, what in await compared.found()]
    assert len(whats) == 2
    assert all(f"org:{dev_uuid('acme')}:user:" in what for what in whats)


async def test_looking_changes_nothing(compared: Compared) -> None:
    await compared.some()
    key = quota_of(compared, "ada")
    await add_to_counter(compared, key, 1)
    before = await compared.service.redis.run("HGETALL", key)
    await compared.found()
    assert await compared.service.redis.run("HGETALL", key) == before
    assert await compared.sql.fetchval("SELECT COUNT(*) FROM audit_events") == 0


async def test_traffic_is_no_difference(compared: Compared) -> None:
    """Recorded, drained and loaded meanwhile, as often as it takes to meet each other."""
    await compared.some()
    reconciler, busy = compared.reconciler(repair=True), True

    async def use() -> None:
        while busy:
            await compared.record("ada", 2, organization_id="acme")
            await compared.record("bob", 1)

    async def drain() -> None:
        while busy:
            await compared.service.drained()
            await compared.service.redis.run("DEL", quota_of(compared, "bob"))
            await asyncio.sleep(0)

    work = [asyncio.create_task(use()), asyncio.create_task(drain())]
    try:
        for _ in range(25):
            report = await reconciler.whole(compared.service.settings.partitions)
            assert report.findings == []
    finally:
        busy = False
        await asyncio.gather(*work)
    assert await compared.sql.fetchval("SELECT COUNT(*) FROM usage_records") > 30


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("DELETE FROM usage_records WHERE position = (SELECT MAX(position) FROM usage_records)",
         ["I2", "I3", "I3", "I9", "I9"]),
        ("DELETE FROM usage_keys WHERE usage_id = (SELECT usage_id FROM usage_records LIMIT 1)",
         ["I2"]),
        ("UPDATE usage_keys SET stream_id = '1-1'"
         " WHERE usage_id = (SELECT usage_id FROM usage_records LIMIT 1)", ["I2"]),
        ("UPDATE usage_records SET used_after = used_after + 1"
         " WHERE position = (SELECT MAX(position) FROM usage_records)", ["I5", "I9"]),
        ("UPDATE usage_records SET pool_used_after = pool_used_after + 1"
         " WHERE position = (SELECT MAX(position) FROM usage_records)", ["I5", "I9"]),
        ("UPDATE usage_records SET used_after = 10001, pool_used_after = 10001"
         " WHERE position = (SELECT MAX(position) FROM usage_records)", ["I4", "I5", "I5", "I9"]),
        ("UPDATE usage_totals SET quantity = quantity + 1"
         " WHERE subject LIKE 'org:%:user:%' AND quantity = 6", ["I3", "I3", "I3", "I3"]),
        ("UPDATE usage_records SET plan_tier = 'other'"
         " WHERE position = (SELECT MAX(position) FROM usage_records)", ["I9"]),
        ("UPDATE audit_seals SET head = sha256('other')", ["I9"] * 3),
        ("UPDATE audit_seals SET records = records - 1", ["I9"] * 4),
        ("DELETE FROM audit_seals", ["I9"] * 13),
    ],
)  # fmt: skip
async def test_damage_to_the_ledger_is_found_and_named(
    compared: Compared, damage: str, found: list[str]
) -> None:
    for user in ("ada", "bob"):
        for quantity in (1, 2, 3):
            await compared.record(user, quantity, organization_id="acme")
    await compared.service.drained()
    assert await compared.found() == []
    await compared.sql.execute(damage)
    assert sorted(invariant for invariant, _ in await compared.found()) == found


async def test_a_repeat_that_redis_counted_again_is_given_back_at_once(compared: Compared) -> None:
    await compared.record("ada", 5, idempotency_key="same")
    await compared.service.drained()
    receipts = await compared.service.redis.run("KEYS", "receipt:*")
    await compared.service.redis.run("DEL", *receipts)
    await compared.record("ada", 5, idempotency_key="same")
    assert await compared.found() == []  # until it is drained nobody can know
    await compared.service.drained()
    assert await compared.sql.fetchval("SELECT COUNT(*) FROM usage_refunds") == 1
    assert await compared.found() == []
    _, said, _ = await compared.service.get("/quota/ada")
    [calls] = [one for one in said["quotas"] if one["usage_type"] == "api_calls"]
    assert calls["used"] == 5


async def test_the_next_look_takes_up_where_the_last_one_ended(compared: Compared) -> None:
    partitions = range(compared.service.settings.partitions)
    reconciler = compared.reconciler()
    await compared.some()
    await compared.service.drained()
    first = await reconciler.run_once(partitions)
    assert (first.compared["I2"], first.findings) == (12, [])
    await compared.record()
    await compared.service.drained()
    await compared.forget_positions()
    assert (await reconciler.run_once(partitions)).compared["I2"] == 1


async def test_two_ledgers_do_not_look_at_the_same_partition(compared: Compared) -> None:
    partitions = range(compared.service.settings.partitions)
    one, other = compared.reconciler(), compared.reconciler()
    await compared.some()
    assert (await one.run_once(partitions)).compared["I3"] > 0
    assert (await other.run_once(partitions)).compared["I3"] == 0


async def test_a_quota_that_nobody_uses_is_compared_as_well(compared: Compared) -> None:
    partitions = range(compared.service.settings.partitions)
    reconciler = compared.reconciler()
    await compared.some()
    await compared.service.drained()
    await reconciler.run_once(partitions)
    await add_to_counter(compared, quota_of(compared, "bob"), 1)
    await compared.forget_positions()
    [finding] = (await reconciler.run_once(partitions)).findings
    assert finding.invariant == "I3"
    assert await store.reconcile_findings(compared.sql) == [Found("I3", 1, 1)]


async def test_damaged_rows_are_told_of_until_they_are_mended(compared: Compared) -> None:
    partitions = range(compared.service.settings.partitions)
    reconciler = compared.reconciler()
    await compared.some()
    await compared.service.drained()
    await compared.sql.execute("UPDATE audit_seals SET head = sha256('other')")
    for _ in range(2):
        await reconciler.run_once(partitions)
        [found] = await store.reconcile_findings(compared.sql)
        assert (found.invariant, found.standing > 0) == ("I9", True)
        await compared.forget_positions()
    await compared.sql.execute("TRUNCATE audit_seals, usage_records, usage_keys, usage_totals")
    await compared.sql.execute("UPDATE stream_cursor SET audit_head = sha256(''), position = 0")
    await compared.service.redis.run("DEL", *await compared.service.redis.run("KEYS", "quota:*"))
    await reconciler.whole(len(partitions))
    assert await store.reconcile_findings(compared.sql) == []


async def test_a_counter_that_is_no_number_is_made_anew(compared: Compared) -> None:
    await compared.some()
    await compared.service.drained()
    key = quota_of(compared, "ada")
    await compared.service.redis.run("HSET", key, "used:api_calls", "1.5")
    [finding] = (await compared.whole(repair=True)).findings
    assert "Redis says nothing readable, the ledger 6" in finding.what
    await compared.record("ada", 1)
    await compared.service.drained()
    assert await compared.found() == []


async def test_a_changed_subscription_accuses_no_row_of_before(compared: Compared) -> None:
    await on_plan(compared.sql, "ada", allows("api_calls", "20"))
    await compared.record("ada", 20)
    await compared.service.drained()
    assert await compared.found() == []
    await add_plan(compared.sql, "lower", allows("api_calls", "10"))
    await compared.sql.execute("UPDATE subscriptions SET plan_tier = 'lower', updated_at = NOW()")
    assert await compared.found() == []


async def test_a_redis_that_is_not_vouched_for_is_not_compared(compared: Compared) -> None:
    await compared.some()
    for partition in range(compared.service.settings.partitions):
        await compared.service.redis.run("HSET", keys.meta(partition), "replid", "f" * 40)
    report = await compared.whole()
    assert report.findings == []
    assert report.compared["I3"] == 0
    assert all("not been vouched for" in reason for reason in report.skipped)
    assert len(report.skipped) > 0


async def test_the_time_of_a_repair_is_the_services(compared: Compared) -> None:
    before = clock.now()
    await compared.some()
    await add_to_counter(compared, quota_of(compared, "ada"), 1)
    await compared.whole(repair=True)
    at = await compared.sql.fetchval("SELECT occurred_at FROM audit_events")
    assert before <= at <= clock.now()


async def test_a_counter_is_not_made_anew_from_a_total_that_is_wrong(compared: Compared) -> None:
    await compared.some()
    await compared.service.drained()
    await compared.sql.execute("UPDATE usage_totals SET quantity = 1 WHERE subject LIKE 'user:%'")
    partitions = range(compared.service.settings.partitions)
    report = await compared.reconciler(repair=True).run_once(partitions)
    assert {one.repaired for one in report.findings} == {False}
    assert sum("the total says 1, the rows 6" in one.what for one in report.findings) == 2
    _, said, _ = await compared.service.get("/quota/ada")
    assert [one["used"] for one in said["quotas"] if one["usage_type"] == "api_calls"] == [6]


async def test_a_counter_that_was_repaired_is_no_gap_afterwards(compared: Compared) -> None:
    await compared.record("ada", 1)
    await add_to_counter(compared, quota_of(compared, "ada"), 5)
    await compared.record("ada", 1)
    await compared.service.drained()
    assert {one for one, _ in await compared.found()} == {"I3", "I5"}
    await compared.whole(repair=True)
    await compared.record("ada", 1)
    await compared.service.drained()
    assert await compared.found() == []
