"""All subscriptions of a plan are brought to another version of it, each once and by the rules."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.catalogue import own_version
from ledger.domain.overrides import Overrides
from ledger.store import plan_migrations
from ledger.store.catalogue import plan
from ledger.wishes import Wish
from tests.invoices.conftest import Months
from tests.invoices.migrating import NEW, ask, told, two_versions, versions, work
from tests.invoices.test_rollover import quota
from tests.ledger.plans import add_plan


@pytest.fixture
async def pro(months: Months) -> Months:
    await two_versions(months)
    return months


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
