"""Whoever works a migration of a plan off: many at once, the ledger's loop, one that dies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger import db, loops
from ledger.supersede import Superseder
from tests.invoices.conftest import Months
from tests.invoices.migrating import ask, told, two_versions, versions, work, worker
from tests.invoices.test_rollover import quota

OPEN = "SELECT COUNT(*) FROM plan_migrations WHERE done_at IS NULL"


@pytest.fixture
async def pro(months: Months) -> Months:
    await two_versions(months)
    return months


async def test_many_workers_change_each_once(pro: Months, database_url: str) -> None:
    for number in range(20):
        await pro.create(f"user {number}", "pro")
    await pro.sql.execute(
        "UPDATE subscriptions SET plan_version = 1, version = nextval('subscription_versions')"
    )
    await ask(pro.service, when="now")
    others = [await db.connect(database_url) for _ in range(3)]

    async def one(opened: db.Connection) -> int:
        steps = 0
        while await opened.fetchval(OPEN):
            steps += await worker(pro, opened).run_once(pro.now)
        return steps

    try:
        assert sum(await asyncio.gather(*map(one, others))) == 22
    finally:
        for opened in others:
            await opened.close()
    changes = await pro.sql.fetchval(
        "SELECT COUNT(*) FROM subscription_history WHERE action = 'migrate'"
    )
    assert (changes, set(await versions(pro))) == (22, {2})


async def test_the_ledgers_own_loop_works_it_off(pro: Months) -> None:
    asked = await ask(pro.service, when="now")
    once = await loops._cycle(pro.service.settings, pro.sql, pro.service.servers)
    while (await told(pro.service, asked))["status"] == "running":
        assert await once() == 0 or await versions(pro) == [2, 2]
    assert await versions(pro) == [2, 2]


class Killed(Exception):
    pass


async def test_a_worker_that_dies_between_two_goes_on_where_it_was(
    pro: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = await ask(pro.service, when="now")
    dying = worker(pro)

    async def reach(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(dying._superseder, "reach", reach)
    with pytest.raises(Killed):
        await dying.run_once(pro.now)
    assert (await told(pro.service, asked))["changed"] == 1
    assert await work(pro) == 1
    said = await told(pro.service, asked)
    assert (said["status"], said["changed"]) == ("done", 2)
    # What the dead one had not told Redis is owed still.
    superseder = Superseder(pro.service.scripts, "basic", pro.service.settings.partitions)
    assert await superseder.run_once(pro.sql) == 1
    assert {(await quota(pro, user))[0] for user in ("ada", "ben")} == {50}


async def test_one_that_cannot_be_changed_holds_up_no_other(pro: Months) -> None:
    await pro.sql.execute(
        "UPDATE subscriptions SET timezone = 'Nowhere/Land'"
        " WHERE user_id = (SELECT user_id FROM subscriptions ORDER BY subscription_id LIMIT 1)"
    )
    asked = await ask(pro.service, when="now")
    await work(pro)
    said = await told(pro.service, asked)
    assert (said["changed"], list(said["skipped"])) == (
        1, ["it could not be changed: ZoneInfoNotFoundError"]
    )  # fmt: skip
    await pro.sql.execute("UPDATE subscriptions SET timezone = 'UTC'")
