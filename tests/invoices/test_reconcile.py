"""Reconcile finds an invoice that was edited, and a record that is on no line or on two."""

from __future__ import annotations

from datetime import timedelta

import pytest

from chaos.check import no_hard_limit_is_passed
from ledger.reconcile import Reconciler
from ledger.reconcile.invoices import check_invoices
from ledger.reconcile.rows import check as check_rows
from ledger.rollover import LATEST
from ledger.wishes import Wish
from tests.conftest import Service
from tests.invoices.conftest import TYPE, Months
from tests.invoices.test_corrections import correct, finished
from tests.invoices.test_cycle import CENT_EACH
from tests.ledger.plans import add_plan, allows, pool

LATE = (
    "UPDATE invoice_line_usage u SET {} FROM invoice_lines l"
    " WHERE l.line_id = u.line_id AND kind = 'adjustment'"
)


@pytest.fixture
async def invoiced(service: Service) -> Months:
    """A month with usage, an adjustment of it, a correction and a change of plan; then the end."""
    months = Months(service, park_above=1_000_000)
    await months.plan("pro", "49.00", CENT_EACH)
    await months.plan("max", "99.00", CENT_EACH)
    await months.create("ada", "pro")
    original = await months.use("ada", 150)
    await months.service.drained()
    await months.act("ada", Wish("change", "max", "now"))
    end = await months.end_of_period("ada")
    await months.use("ada", 10, at=end - timedelta(hours=2))
    await correct(months, original, -50)
    await finished(months)
    await months.end_of_period("ada")
    await months.act("ada", Wish("cancel", when="now"))
    await months.advance(months.now + LATEST + timedelta(days=1))
    return months


async def found(months: Months) -> list[tuple[str, str]]:
    service = months.service
    reconciler = Reconciler(months.sql, service.servers, service.scripts, repair=False)
    report = await reconciler.whole(service.settings.partitions)
    return [(one.invariant, one.what) for one in report.findings]


async def test_invoices_agree_and_each_damage_is_found(invoiced: Months) -> None:
    """One service for all: each damage is taken back before the next."""
    assert await found(invoiced) == []
    for sql, invariant, words in (
        ("UPDATE invoices SET total = total + 1 WHERE number = 'INV-00000002'", "I6",
         "its lines come to"),
        ("UPDATE invoices SET subtotal = subtotal + 1 WHERE number = 'INV-00000002'", "I6",
         "its lines come to"),
        ("UPDATE invoice_lines SET amount = amount + 1 WHERE kind = 'usage'", "I6",
         "its lines come to"),
        ("UPDATE invoice_lines SET quantity = quantity + 1 WHERE kind = 'adjustment'", "I6",
         "are noted as invoiced"),
        ("UPDATE billed_usage SET billable = billable + 1", "I6", "are noted as invoiced"),
        ("UPDATE billed_usage SET measured = measured + 1", "I6", "are noted as invoiced"),
        ("UPDATE billed_usage SET records = records + 1", "I6", "are noted as invoiced"),
        ("DELETE FROM billed_usage", "I6", "0 are noted as invoiced"),
        ("UPDATE invoices SET number = NULL WHERE number = 'INV-00000002'", "I6",
         "no invoice has the number INV-00000002"),
        ("UPDATE invoices SET number = 'INV-00000009' WHERE number = 'INV-00000002'", "I6",
         "INV-00000009 was never given out"),
        ("UPDATE billing_periods SET invoiced_at = NULL WHERE kind = 'opening'", "I6",
         "would be invoiced again"),
        (LATE.format("after_position = 0"), "I7",
         "are on two lines"),
        (LATE.format("after_position = through"), "I7",
         "are on no line"),
        (LATE.format("through = after_position"), "I7",
         "are on no line"),
        ("UPDATE billed_usage SET positions = '{}'", "I7", "on a line and not noted"),
        ("UPDATE billed_usage SET records = records - 1", "I7", "will be on no invoice"),
    ):  # fmt: skip
        transaction = invoiced.sql.transaction()
        await transaction.start()
        try:
            await invoiced.sql.execute(sql)
            report = await check_invoices(invoiced.sql)
        finally:
            await transaction.rollback()
        told = [one.what for one in report.findings if one.invariant == invariant]
        assert any(words in what for what in told), (sql, report.findings)


async def limits(months: Months) -> list[str]:
    """What passed a limit, as reconcile and as the shared checks see it."""
    passed = []
    for partition in range(months.service.settings.partitions):
        report = await check_rows(months.sql, partition, 0, 2**60)
        passed += [one.what for one in report.findings if one.invariant == "I4"]
    assert bool(await no_hard_limit_is_passed(months.sql)) == bool(passed)
    return passed


async def test_what_was_used_under_a_larger_limit_is_no_fault_after_a_change(
    months: Months,
) -> None:
    await add_plan(months.sql, "large", allows(TYPE, "100"))
    await add_plan(months.sql, "small", allows(TYPE, "50"))
    await months.create("ada", "large")
    await months.use("ada", 80)
    await months.advance(months.now + timedelta(minutes=1))
    await months.act("ada", Wish("change", "small", "now"))
    assert await limits(months) == []
    await months.sql.execute("UPDATE usage_records SET used_after = 101")
    assert len(await limits(months)) == 1
    await months.sql.execute("UPDATE usage_records SET used_after = 80")


async def test_what_a_plan_of_ones_own_allowed_is_no_fault_after_its_end(months: Months) -> None:
    await add_plan(months.sql, "own", allows(TYPE, "100"))
    await add_plan(months.sql, "team", allows(TYPE, "50"), pool(TYPE, "200"))
    await months.create("boss", "team", organization="acme")
    await months.create("ada", "own")
    await months.use("ada", 80, organization_id="acme")
    await months.use("ben", 20, organization_id="acme")
    await months.service.drained()
    assert await limits(months) == []
    await months.sql.execute("UPDATE usage_records SET used_after = used_after + 21")
    assert len(await limits(months)) == 1  # ada's; ben has 41 of 50
    await months.sql.execute("UPDATE usage_records SET used_after = used_after + 10")
    assert len(await limits(months)) == 2
    await months.sql.execute("UPDATE usage_records SET used_after = used_after - 31")
    await months.advance(months.now + timedelta(minutes=1))
    await months.act("ada", Wish("cancel", when="now"))
    assert await limits(months) == []
