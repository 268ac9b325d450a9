"""Invoices are read by whom they concern, down to the records behind each line."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from ledger.domain.ids import dev_uuid
from ledger.wishes import Wish
from tests.conftest import Service
from tests.invoices.conftest import TYPE, Months

CENT_EACH = {"usage_type": TYPE, "model": "per_unit", "unit_amount": "0.01", "included": "10"}
FIELDS = [
    "invoice_id", "number", "subscription_id", "user_id", "organization_id", "period", "currency",
    "status", "lines", "subtotal", "total", "tax", "amount_paid", "credited", "issued_at", "due_at",
    "parked", "stripe_invoice_id",
]  # fmt: skip


async def get(service: Service, path: str, role: Any = "finance", **said: Any) -> tuple[int, Any]:
    status, answer, _ = await service.get(path, headers=service.token(role, **said))
    return status, answer


@pytest.fixture
async def billed(months: Months) -> Months:
    """Two invoices of ada's, and two of an organisation's."""
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    await months.create("boss", "pro", organization="acme")
    for _ in range(3):
        await months.use("ada", 20)
        await months.use("ben", 30, organization_id="acme")
    await months.end_of_period("ada")
    return months


async def test_an_invoice_says_what_is_paid_for_and_how_it_comes_about(billed: Months) -> None:
    status, said = await get(billed.service, "/invoices?user_id=ada")
    assert (status, said["has_more"], len(said["data"])) == (200, False, 2)
    newest = said["data"][0]
    assert list(newest) == FIELDS
    assert (newest["subtotal"], newest["total"], newest["tax"]) == ("49.50", "49.50", "0.00")
    [fee, usage] = newest["lines"]
    assert (fee["kind"], fee["amount"], fee["quantity"]) == ("base_fee", "49.00", None)
    assert (usage["kind"], usage["quantity"], usage["unit_amount"], usage["amount"]) == (
        "usage", "60", "0.01", "0.50"
    )  # fmt: skip
    assert await get(billed.service, f"/invoices/{newest['invoice_id']}") == (200, newest)


async def test_the_records_behind_a_line_sum_to_its_quantity(billed: Months) -> None:
    service = billed.service
    _, said = await get(service, "/invoices?organization_id=acme")
    newest = said["data"][0]
    [fee, usage] = newest["lines"]
    path = f"/invoices/{newest['invoice_id']}/lines"
    status, records = await get(service, f"{path}/{usage['line_id']}/usage")
    assert (status, len(records["data"])) == (200, 3)
    assert sum(one["quantity"] for one in records["data"]) == 90
    assert {one["organization_id"] for one in records["data"]} == {str(dev_uuid("acme"))}
    _, first = await get(service, f"{path}/{usage['line_id']}/usage?limit=2")
    assert first["has_more"] is True
    last = first["data"][-1]["usage_id"]
    _, rest = await get(service, f"{path}/{usage['line_id']}/usage?starting_after={last}")
    assert [one["usage_id"] for one in first["data"] + rest["data"]] == [
        one["usage_id"] for one in records["data"]
    ]
    assert (await get(service, f"{path}/{fee['line_id']}/usage"))[1]["data"] == []
    assert (await get(service, f"{path}/{uuid4()}/usage"))[0] == 404


async def test_what_came_late_is_behind_its_adjustment_and_nowhere_else(billed: Months) -> None:
    before = (await billed.invoices())[-1].period_end
    late = await billed.use("ada", 7, at=before - timedelta(hours=1))
    await billed.end_of_period("ada")
    _, said = await get(billed.service, "/invoices?user_id=ada")
    found: defaultdict[str, list[str]] = defaultdict(list)
    for invoice in said["data"]:
        for line in invoice["lines"]:
            path = f"/invoices/{invoice['invoice_id']}/lines/{line['line_id']}/usage"
            for one in (await get(billed.service, path))[1]["data"]:
                found[one["usage_id"]].append(line["kind"])
    assert found.pop(str(late)) == ["adjustment"]
    assert set(map(tuple, found.values())) == {("usage",)}


async def test_the_running_period_is_shown_before_it_is_over(billed: Months) -> None:
    await billed.use("ada", 15)
    await billed.service.drained()
    status, said = await get(billed.service, "/invoices/upcoming/ada")
    assert (status, said["preview"], said["total"]) == (200, True, "0.05")
    [line] = said["lines"]
    assert (line["kind"], line["quantity"]) == ("usage", "15")
    before = await billed.sql.fetch("SELECT * FROM billed_usage")
    await get(billed.service, "/invoices/upcoming/ada")
    assert await billed.sql.fetch("SELECT * FROM billed_usage") == before
    assert (await get(billed.service, "/invoices/upcoming/nobody"))[0] == 404


async def test_an_invoice_is_found_by_its_number_by_whom_it_concerns(billed: Months) -> None:
    _, said = await get(billed.service, "/invoices?user_id=ada")
    one = said["data"][0]
    path = f"/invoices?number={one['number']}"
    assert await get(billed.service, path) == (200, {"data": [one], "has_more": False})
    assert (await get(billed.service, path, "user", user="ada"))[1]["data"] == [one]
    assert (await get(billed.service, path, "user", user="ben"))[1]["data"] == []
    assert (await get(billed.service, "/invoices?number=INV-0"))[1]["data"] == []


async def test_a_page_goes_on_where_the_last_one_ended(billed: Months) -> None:
    _, everything = await get(billed.service, "/invoices")
    ids = [one["invoice_id"] for one in everything["data"]]
    assert len(ids) == 4
    found: list[str] = []
    query = "limit=1"
    for _ in ids:
        _, page = await get(billed.service, f"/invoices?{query}")
        found += [one["invoice_id"] for one in page["data"]]
        query = f"limit=1&starting_after={found[-1]}"
    assert found == ids
    assert (await get(billed.service, f"/invoices?starting_after={uuid4()}"))[0] == 400
    _, none = await get(billed.service, "/invoices?status=void")
    assert none["data"] == []


async def test_everybody_reads_their_own_and_nobody_elses(billed: Months) -> None:
    service = billed.service
    _, hers = await get(service, "/invoices?user_id=ada")
    _, theirs = await get(service, "/invoices?organization_id=acme")
    her, their = hers["data"][0]["invoice_id"], theirs["data"][0]["invoice_id"]
    ada: dict[str, Any] = {"role": "user", "user": "ada"}
    boss: dict[str, Any] = {"role": "user", "user": "boss"}
    admin: dict[str, Any] = {"role": "org_admin", "organizations": ["acme"]}
    other: dict[str, Any] = {"role": "org_admin", "organizations": ["other"]}
    finance: dict[str, Any] = {"role": "finance"}
    for who, path, expected in [
        (ada, f"/invoices/{her}", 200),
        (ada, f"/invoices/{their}", 404),
        (boss, f"/invoices/{their}", 404),
        (admin, f"/invoices/{their}", 200),
        (admin, f"/invoices/{her}", 404),
        (other, f"/invoices/{their}", 404),
        (ada, "/invoices", 200),
        (ada, "/invoices?user_id=ben", 403),
        (admin, "/invoices", 400),
        (admin, "/invoices?organization_id=other", 404),
        (ada, f"/invoices?starting_after={their}", 400),
        (ada, "/invoices/upcoming/ada", 200),
        (ada, "/invoices/upcoming/ben", 404),
        ({"role": "service"}, "/invoices", 403),
        (finance, "/invoices/nonsense", 404),
        (finance, "/invoices?limit=0", 400),
    ]:
        assert (await get(service, path, **who))[0] == expected, (who, path)
    _, own = await get(service, "/invoices", **ada)
    assert {one["user_id"] for one in own["data"]} == {str(dev_uuid("ada"))}
    _, none = await get(service, "/invoices", **boss)
    assert none["data"] == []
    assert (await service.get("/invoices"))[0] == 401


async def test_one_that_began_twice_on_a_day_is_invoiced_for_both(billed: Months) -> None:
    await billed.use("ada", 40)
    await billed.act("ada", Wish("cancel", when="now"))
    await billed.act("ada", Wish("reactivate"))
    await billed.use("ada", 50)
    await billed.end_of_period("ada")
    _, said = await get(billed.service, "/invoices?user_id=ada")
    used = [
        line["quantity"]
        for invoice in said["data"]
        for line in invoice["lines"]
        if line["kind"] in ("usage", "adjustment")
    ]
    assert sum(map(int, used)) == 60 + 40 + 50
