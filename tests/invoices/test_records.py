"""The records behind what is invoiced: of who pays, each once."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ledger import store
from tests.invoices.conftest import Months
from tests.invoices.test_cycle import CENT_EACH

TENS = CENT_EACH | {"units": {"policy": "ceil", "size": "10"}}


async def behind(months: Months, line: str = "usage") -> set[UUID]:
    """Of the newest invoice's line of a kind."""
    invoice = (await months.invoices())[-1]
    lines = await store.invoices.lines(months.sql, [invoice.invoice_id])
    [one] = [one for one in lines[invoice.invoice_id] if one.kind == line]
    found: Any = await store.invoices.line_usage(
        months.sql, invoice.invoice_id, one.line_id, None, 100
    )
    return {row["usage_id"] for row in found}


async def test_units_are_counted_of_a_users_own_records(months: Months) -> None:
    await months.plan("pro", "49.00", TENS)
    await months.create("ada", "pro")
    mine = {await months.use("ada", 1), await months.use("ada", 11)}
    await months.use("ben", 10)
    await months.end_of_period("ada")
    assert ("usage", "0.30") in await months.lines((await months.invoices())[-1])
    assert await behind(months) == mine


async def test_units_are_counted_of_all_records_of_an_organization(months: Months) -> None:
    await months.plan("team", "100.00", TENS)
    await months.create("boss", "team", organization="acme")
    of_acme = {await months.use(user, 1, organization_id="acme") for user in ("ada", "boss")}
    await months.use("boss", 10)
    await months.use("ada", 10, organization_id="other")
    await months.end_of_period("boss", "acme")
    assert ("usage", "0.20") in await months.lines((await months.invoices())[-1])
    assert await behind(months) == of_acme
