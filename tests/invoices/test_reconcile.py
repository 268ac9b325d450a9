"""Reconcile finds an invoice that was edited, and a record that is on no line or on two."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ledger.reconcile import Reconciler
from ledger.reconcile.invoices import check_invoices
from ledger.rollover import LATEST
from ledger.wishes import Wish
from tests.conftest import Service
from tests.invoices.conftest import Months
from tests.invoices.test_corrections import correct, finished
from tests.invoices.test_cycle import CENT_EACH

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
