"""All subscriptions of a plan are brought to another version of it, each once and by the rules."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger import db, loops
from ledger.catalogue import own_version
from ledger.domain.overrides import Overrides
from ledger.plan_migrations import PlanMigrations
from ledger.store import plan_migrations
from ledger.store.catalogue import plan
from ledger.supersede import Superseder
from ledger.wishes import Wish
from tests.conftest import Service
from tests.invoices.conftest import GRACE, TYPE, Months
from tests.invoices.test_rollover import quota
from tests.ledger.plans import add_plan, allows

OPEN = "SELECT COUNT(*) FROM plan_migrations WHERE done_at IS NULL"
OLD, NEW = allows(TYPE, "10"), allows(TYPE, "50")


async def ask(service: Service, tier: str = "pro", **said: Any) -> Any:
    path = f"/plans/{tier}/migrate"
    status, answer, _ = await service.post(path, said or None, headers=service.token("finance"))
    assert status == 202, answer
    return answer


async def told(service: Service, asked: Any) -> Any:
    """What it has come to."""
    path = f"/plans/{asked['plan_tier']}/migrations/{asked['migration_id']}"
    status, answer, _ = await service.get(path, headers=service.token("finance"))
    assert status == 200, answer
    return answer


def worker(months: Months, connection: db.Connection | None = None) -> PlanMigrations:
    superseder = Superseder(months.service.scripts, "basic", months.service.settings.partitions)
    return PlanMigrations(connection or months.sql, superseder, GRACE)


async def work(months: Months) -> int:
    """Everything that is asked for is done; how many subscriptions it came to."""
    steps = 0
    while more := await worker(months).run_once(months.now):
        steps += more
    return steps


async def versions(months: Months) -> list[int]:
    rows = await months.sql.fetch("SELECT plan_version FROM subscriptions ORDER BY 1")
    return [row["plan_version"] for row in rows]


@pytest.fixture
async def pro(months: Months) -> Months:
    """Ada and Ben on the first of two versions of a plan."""
    await version(months, OLD, 30)
    for user in ("ada", "ben"):
        await months.create(user, "pro")
    await version(months, NEW, 60)
    return months


async def version(months: Months, allowed: dict[str, Any], fee: int) -> None:
    made = await add_plan(months.sql, "pro", allowed)
    await months.sql.execute(
        "UPDATE billing_plans SET base_fee = $2 WHERE plan_tier = 'pro' AND version = $1",
        made,
        fee,
    )


async def test_now_the_next_request_is_on_the_new_version_and_the_fee_is_prorated(
    pro: Months,
) -> None:
    await pro.use("ada", 9)
    assert (await quota(pro, "ada")) == (10, 0, 9)
    asked = await ask(pro.service, when="now")
    assert (asked["status"], asked["to_version"], asked["from_version"]) == ("running", 2, None)
    assert await work(pro) == 2
    said = await told(pro.service, asked)
    assert (said["status"], said["changed"], said["pending"], said["skipped"]) == (
        "done", 2, 0, {}
    )  # fmt: skip
    assert await versions(pro) == [2, 2]
    assert (await quota(pro, "ada")) == (50, 0, 9)
    lines = await pro.sql.fetch(
        "SELECT line ->> 'kind' AS kind, SUM((line ->> 'amount')::NUMERIC) AS amount"
        " FROM pending_lines GROUP BY 1 ORDER BY 1"
    )
    assert [one["kind"] for one in lines] == ["credit", "proration"]
    assert f"{sum(one['amount'] for one in lines):.2f}" == said["total"] != "0.00"
    told_of = await pro.sql.fetch(
        "SELECT action, actor FROM subscription_history WHERE action <> 'create'"
    )
    assert [tuple(one) for one in told_of] == [("migrate", "finance-dev")] * 2
    await pro.settle()


async def test_at_the_periods_end_it_is_pending_and_then_in_force(pro: Months) -> None:
    asked = await ask(pro.service)
    await work(pro)
    said = await told(pro.service, asked)
    assert (said["when"], said["changed"], said["pending"]) == ("period_end", 0, 2)
    assert await versions(pro) == [1, 1]
    await pro.end_of_period("ada")
    assert await versions(pro) == [2, 2]
    assert (await quota(pro, "ada")) == (50, 0, 0)
    fees = [await pro.lines(one) for one in (await pro.invoices())[2:]]
    assert fees == [[("base_fee", "60.00")]] * 2


async def test_who_has_other_terms_or_plans_is_skipped_and_counted(pro: Months) -> None:
    await pro.plan("max", "90.00")
    for user in ("cyd", "dan", "eve", "fay"):
        await pro.create(user, "pro")  # on version 2
    await pro.sql.execute(
        "UPDATE subscriptions SET plan_version = 1, version = nextval('subscription_versions')"
    )
    wishes = [
        ("ben", Wish("change", "max", when="period_end")),
        ("cyd", Wish("cancel")),
        ("dan", Wish("pause")),
        ("eve", Wish("change", "pro", overrides=Overrides(name="Eve's"), when="now")),
        ("fay", Wish("cancel", when="now")),
    ]
    for user, wish in wishes:
        await pro.act(user, wish)
    asked = await ask(pro.service, when="now")
    assert await work(pro) == 5
    said = await told(pro.service, asked)
    assert (said["changed"], said["pending"]) == (1, 0)
    assert said["skipped"] == {
        "another change of the subscription is pending": 1,
        "the subscription is to be cancelled; uncancel it first": 1,
        "change_now is not possible while the subscription is paused": 1,
        "the subscription has overrides": 1,
    }
    assert await versions(pro) == [1, 1, 1, 1, 2, 3]


async def test_a_plan_of_another_currency_or_interval_is_no_newer_version(pro: Months) -> None:
    await pro.sql.execute("UPDATE billing_plans SET currency = 'EUR' WHERE version = 2")
    asked = await ask(pro.service)
    await work(pro)
    said = await told(pro.service, asked)
    assert said["skipped"] == {"a plan of another currency needs a new subscription": 2}
    await pro.sql.execute(
        "UPDATE billing_plans SET currency = 'USD', interval = 'year' WHERE version = 2"
    )
    asked = await ask(pro.service, when="now")
    await work(pro)
    skipped = (await told(pro.service, asked))["skipped"]
    assert skipped == {"a plan by year can only begin at the period's end": 2}


async def test_a_preview_counts_and_changes_nothing(pro: Months) -> None:
    before = await pro.sql.fetch("SELECT * FROM subscriptions ORDER BY 1")
    events = await pro.sql.fetchval("SELECT COUNT(*) FROM audit_events")
    asked = await ask(pro.service, when="now", preview=True)
    await work(pro)
    shown = await told(pro.service, asked)
    assert (shown["preview"], shown["status"], shown["changed"]) == (True, "done", 2)
    assert await pro.sql.fetch("SELECT * FROM subscriptions ORDER BY 1") == before
    assert await pro.sql.fetchval("SELECT COUNT(*) FROM audit_events") == events
    asked = await ask(pro.service, when="now")
    await work(pro)
    assert (await told(pro.service, asked))["total"] == shown["total"] != "0.00"


async def test_asked_again_it_is_the_same_and_goes_on_with_who_is_left(pro: Months) -> None:
    first, again = await ask(pro.service), await ask(pro.service)
    assert first == again
    assert (await ask(pro.service, when="now"))["migration_id"] != first["migration_id"]
    await work(pro)
    later = await ask(pro.service)
    assert later["migration_id"] != first["migration_id"]
    await work(pro)
    assert (await told(pro.service, later))["skipped"] == {"this change is pending already": 2}
    await pro.end_of_period("ada")
    last = await ask(pro.service)
    assert await work(pro) == 0
    assert (await told(pro.service, last))["status"] == "done"


async def test_one_version_alone_and_back_to_an_older_one(pro: Months) -> None:
    await add_plan(pro.sql, "pro", NEW)
    await pro.create("cyd", "pro")
    await ask(pro.service, from_version=3, to_version=1, when="now")
    assert await work(pro) == 1
    assert await versions(pro) == [1, 1, 1]


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


async def test_what_makes_no_sense_is_refused(pro: Months) -> None:
    stored = await pro.sql.fetchval("SELECT subscription_id FROM subscriptions LIMIT 1")
    public = await plan(pro.sql, "pro")
    assert public is not None
    async with pro.sql.transaction():
        own = await own_version(
            pro.sql, stored, public, Overrides(name="Mine"), actor="test", now=pro.now
        )
    assert own[0] == 3
    finance = pro.service.token("finance")
    refused: list[dict[str, Any]] = [
        {"to_version": 9},
        {"from_version": 9},
        {"from_version": 1, "to_version": 1},
        {"from_version": 2},  # the newest
        {"to_version": 3},  # of one customer
        {"from_version": 3},
        {"to_version": 0},
        {"when": "later"},
        {"colour": "red"},
    ]
    for said in refused:
        status, _, _ = await pro.service.post("/plans/pro/migrate", said, headers=finance)
        assert status == 400, said
    assert not await pro.sql.fetch("SELECT FROM plan_migrations")


async def test_only_finance_and_admins_may_and_what_is_not_there_is_not_found(
    pro: Months,
) -> None:
    asked = await ask(pro.service, preview=True)
    path = f"/plans/pro/migrations/{asked['migration_id']}"
    for role, status in [("service", 403), ("user", 403), ("org_admin", 403)]:
        headers = pro.service.token(role, user="ada")  # type: ignore[arg-type]
        assert (await pro.service.post("/plans/pro/migrate", None, headers=headers))[0] == status
        assert (await pro.service.get(path, headers=headers))[0] == status
    assert (await pro.service.post("/plans/pro/migrate", None))[0] == 401
    finance = pro.service.token("finance")
    assert (await pro.service.post("/plans/none/migrate", None, headers=finance))[0] == 404
    for path in (
        f"/plans/basic/migrations/{asked['migration_id']}",
        "/plans/pro/migrations/nonsense",
    ):
        assert (await pro.service.get(path, headers=finance))[0] == 404


async def test_asked_for_again_when_it_is_just_done_it_is_a_new_one(
    pro: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Done after it was in the way of another, and before that one looked which it is."""
    first = await ask(pro.service)
    insert = plan_migrations.insert

    async def then_done(*said: Any) -> Any:
        made = await insert(*said)
        await work(pro)
        return made

    monkeypatch.setattr(plan_migrations, "insert", then_done)
    again = await ask(pro.service)
    assert again["migration_id"] != first["migration_id"]
    assert (await told(pro.service, first))["status"] == "done"
