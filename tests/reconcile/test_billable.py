"""What is to be invoiced is compared with the rows, and made anew from them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest

from ledger import store
from tests.ledger.plans import allows, on_plan, organization_on_plan
from tests.reconcile.conftest import Compared
from tests.reconcile.test_recalculate import OPERATOR, redo


@pytest.fixture
async def paying(compared: Compared) -> dict[str, UUID]:
    """Subscriptions of a user and of an organisation, with drained usage; bob's own is nobody's."""
    found = {
        "ada": await on_plan(compared.sql, "ada", allows("api_calls", "1000")),
        "acme": await organization_on_plan(compared.sql, "acme", allows("api_calls", "1000")),
    }
    await compared.some()
    await compared.service.drained()
    return found


async def damage(compared: Compared, subscription_id: UUID) -> None:
    await compared.sql.execute(
        "UPDATE billable_usage SET quantity = quantity + 1 WHERE subscription_id = $1",
        subscription_id,
    )


async def test_what_is_to_be_invoiced_agrees(compared: Compared, paying: dict[str, UUID]) -> None:
    report = await compared.whole()
    assert (report.findings, report.compared["I6"]) == ([], 2)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE billable_usage SET quantity = quantity + 1 WHERE quantity = 6",
         "7 are to be invoiced, the rows say 6"),
        ("DELETE FROM billable_usage WHERE quantity = 6", "0 are to be invoiced, the rows say 6"),
        ("UPDATE billable_usage SET records = records + 1 WHERE quantity = 6",
         "6 are to be invoiced, the rows say 6"),
        ("UPDATE billable_usage SET plan_version = 9 WHERE quantity = 6",
         "version 1: 0 are to be invoiced, the rows say 6"),
    ],
)  # fmt: skip
async def test_a_wrong_total_is_found_and_named(
    compared: Compared, paying: dict[str, UUID], sql: str, words: str
) -> None:
    await compared.sql.execute(sql)
    found = await compared.found()
    assert {invariant for invariant, _ in found} == {"I6"}
    assert all(f"subscription {paying['ada']}, api_calls of " in what for _, what in found)
    assert found[0][1].endswith(words)


async def test_a_payers_totals_are_made_anew_and_nobody_elses(
    compared: Compared, paying: dict[str, UUID]
) -> None:
    for one in paying.values():
        await damage(compared, one)
    assert len(await compared.found()) == 2
    done = await redo(compared, "ada")
    assert [line.partition(",")[0] for line in done.wrong] == [f"subscription {paying['ada']}"]
    [(_, left)] = await compared.found()
    assert str(paying["acme"]) in left
    await redo(compared, "acme")
    assert await compared.found() == []


async def test_a_total_without_rows_becomes_nothing(
    compared: Compared, paying: dict[str, UUID]
) -> None:
    await compared.sql.execute(
        "INSERT INTO billable_usage SELECT subscription_id, billing_period, plan_tier,"
        " plan_version, 'ai_tokens', partition, 5, 1 FROM billable_usage"
        " WHERE subscription_id = $1",
        paying["ada"],
    )
    assert len(await compared.found()) == 1
    await redo(compared, "ada")
    assert await compared.found() == []


async def test_it_is_told_of_until_it_is_made_anew_and_that_is_audited(
    compared: Compared, paying: dict[str, UUID]
) -> None:
    await damage(compared, paying["ada"])
    await compared.whole()
    await compared.forget_positions()
    await compared.reconciler().run_once(range(compared.service.settings.partitions))
    assert {one.invariant for one in await store.reconcile_findings(compared.sql)} == {"I6"}
    for _ in range(2):  # the second finds nothing to mend, and is no event
        await redo(compared, "ada")
    assert await store.reconcile_findings(compared.sql) == []
    events: list[Any] = await compared.sql.fetch(
        "SELECT actor, details FROM audit_events WHERE event_type = 'billable_recalculated'"
    )
    assert [one["actor"] for one in events] == [OPERATOR]
    [told] = msgspec.json.decode(events[0]["details"])["wrong"]
    assert told.endswith("7 are to be invoiced, the rows say 6")
