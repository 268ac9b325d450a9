"""Looks at a partition: each is completed or known not to be, and what one found is not lost to
another."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from ledger import db, loops, store
from ledger.domain.ids import dev_uuid
from ledger.reconcile import rows
from lua import keys
from tests.reconcile.conftest import Compared
from tests.reconcile.test_recalculate import redo
from tests.reconcile.test_reconcile import add_to_counter, quota_of

ADA = f"user:{dev_uuid('ada')}"


async def damage_total(compared: Compared) -> None:
    await compared.sql.execute("UPDATE usage_totals SET quantity = 1 WHERE subject = $1", ADA)


async def noted(compared: Compared) -> dict[str, int]:
    return {one.invariant: one.findings for one in await store.reconcile_findings(compared.sql)}


async def look(compared: Compared, *, repair: bool = True) -> None:
    """The ledger's next look at every partition."""
    await compared.forget_positions()
    partitions = range(compared.service.settings.partitions)
    await compared.reconciler(repair=repair).run_once(partitions)


async def completed(compared: Compared) -> set[int]:
    """Partitions with a look completed since `long_ago`."""
    ages = await store.reconcile_ages(compared.sql)
    return {partition for partition, seconds in ages.items() if seconds < 3000}


async def long_ago(compared: Compared) -> None:
    await compared.sql.execute("UPDATE reconcile_state SET checked_at = NOW() - INTERVAL '1 hour'")


async def test_a_look_that_fails_or_cannot_compare_is_not_a_completed_one(
    compared: Compared,
) -> None:
    await compared.some()
    await compared.service.drained()
    everything = set(range(compared.service.settings.partitions))
    await long_ago(compared)
    await look(compared)
    assert await completed(compared) == everything
    await long_ago(compared)
    await compared.service.redis.run("HSET", keys.meta(1), "replid", "f" * 40)
    await look(compared)
    assert await completed(compared) == everything - {1}
    await long_ago(compared)
    await compared.sql.execute("ALTER TABLE audit_seals RENAME TO gone")
    with pytest.raises(db.PostgresError):
        await look(compared)
    assert await completed(compared) == set()


async def test_all_that_a_look_at_everything_found_is_noted(compared: Compared) -> None:
    await compared.some()
    await compared.service.drained()
    await add_to_counter(compared, quota_of(compared, "bob"), 1)
    await damage_total(compared)
    await compared.sql.execute(
        "UPDATE usage_records SET plan_tier = 'other' WHERE usage_id IN"
        " (SELECT usage_id FROM usage_records ORDER BY usage_id LIMIT 1)"
    )
    report = await compared.whole()
    found = Counter(one.invariant for one in report.findings)
    assert found == {"I3": 3, "I9": 1}  # a counter, a total and the counter beside it, a seal
    assert await noted(compared) == found


async def test_a_look_that_was_overtaken_does_not_undo_what_was_noted_meanwhile(
    compared: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    await compared.some()
    await compared.service.drained()
    await compared.sql.execute("UPDATE audit_seals SET head = sha256('other')")
    check, once = rows.check, iter([True])

    async def overtaken(*args: Any) -> Any:
        if next(once, False):
            await compared.whole()
        return await check(*args)

    monkeypatch.setattr(rows, "check", overtaken)
    partition = keys.partition_of(keys.subject_of(ADA), compared.service.settings.partitions)
    before = await noted(compared)
    await compared.reconciler().run_once([partition])
    after = await noted(compared)
    assert (before, after["I9"] > 0) == ({}, True)
    found = (await compared.whole()).findings
    assert after == Counter(one.invariant for one in found)


async def test_a_wrong_total_is_told_of_until_it_is_made_anew(compared: Compared) -> None:
    await compared.some()
    await compared.service.drained()
    await compared.service.redis.run("DEL", quota_of(compared, "ada"))
    await damage_total(compared)
    await compared.whole()
    for _ in range(2):
        await look(compared)
        assert await noted(compared) == {"I3": 1}
    await redo(compared, "bob")
    assert await noted(compared) == {"I3": 1}
    await redo(compared, "ada")
    assert await noted(compared) == {}


async def test_a_total_that_goes_on_being_wrong_is_one_finding(compared: Compared) -> None:
    await compared.some()
    await compared.service.drained()
    await damage_total(compared)
    for _ in range(3):
        await compared.record("ada", 1)
        await compared.service.drained()
        await look(compared)
        assert await noted(compared) == {"I3": 2}  # the total, and the counter beside it


async def test_a_counter_that_was_found_is_looked_at_again_first(
    compared: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    await compared.some()
    await compared.service.drained()
    await look(compared)
    await add_to_counter(compared, quota_of(compared, "bob"), 1)
    await compared.whole()
    assert await noted(compared) == {"I3": 1}
    monkeypatch.setattr("ledger.reconcile.STEPS", 0)  # the scan may be a long way off
    await look(compared)
    [found] = await store.reconcile_findings(compared.sql)
    assert (found.findings, found.standing) == (1, 0)
    await look(compared)
    assert await noted(compared) == {}


async def test_a_ledger_that_is_told_to_stop_begins_no_further_look(compared: Compared) -> None:
    service, stop = compared.service, asyncio.Event()
    once = await loops._reconcile(stop, service.settings, compared.sql, service.servers)
    claimed = "SELECT COUNT(*) FROM reconcile_state WHERE claimed_at > NOW() - INTERVAL '1 hour'"
    stop.set()
    await once()
    assert await compared.sql.fetchval(claimed) == 0
    stop.clear()
    await once()
    assert await compared.sql.fetchval(claimed) == service.settings.partitions
