"""Finance issues what was parked, voids, and credits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.conftest import Service
from tests.invoices.conftest import TYPE, Months

CENT_EACH = {"usage_type": TYPE, "model": "per_unit", "unit_amount": "0.01"}


async def post(service: Service, path: str, body: Any = None, role: Any = "finance") -> Any:
    status, said, _ = await service.post(path, body, headers=service.token(role))
    return status, said


@pytest.fixture
async def invoiced(months: Months) -> tuple[Months, str]:
    """One of 49.00."""
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    [first] = await months.invoices()
    return months, f"/invoices/{first.invoice_id}"


async def test_a_parked_invoice_is_issued_by_hand_once(months: Months) -> None:
    await months.plan("pro", "2000000.00")
    await months.create("ada", "pro")
    [parked] = await months.invoices()
    path = f"/invoices/{parked.invoice_id}/issue"
    status, said = await post(months.service, path)
    assert (status, said["number"], said["status"], said["parked"]) == (
        200, "INV-00000001", "open", None
    )  # fmt: skip
    assert said["issued_at"] and said["due_at"]
    assert (await post(months.service, path))[0] == 409


async def test_of_a_voided_invoice_nothing_is_paid_and_nothing_is_invoiced_again(
    invoiced: tuple[Months, str],
) -> None:
    months, path = invoiced
    status, said = await post(months.service, f"{path}/void", {"reason": "wrong customer"})
    assert (status, said["status"], said["number"]) == (200, "void", "INV-00000001")
    [event] = await months.sql.fetch(
        "SELECT actor, details ->> 'reason' AS reason FROM audit_events"
        " WHERE event_type = 'invoice_voided'"
    )
    assert tuple(event) == ("finance-dev", "wrong customer")
    assert (await post(months.service, f"{path}/void", {"reason": "again"}))[0] == 409
    assert (await post(months.service, f"{path}/credits", {"amount": "1", "reason": "x"}))[0] == 409
    await months.end_of_period("ada")
    _, second = await months.invoices()
    assert await months.lines(second) == [("base_fee", "49.00")]


async def test_what_was_credited_is_not_given_back_again_by_a_void(
    invoiced: tuple[Months, str],
) -> None:
    months, path = invoiced
    assert (await post(months.service, f"{path}/credits", {"amount": "9", "reason": "x"}))[0] == 200
    status, said = await post(months.service, f"{path}/void", {"reason": "x"})
    assert (status, (await months.invoices())[0].status) == (409, "open"), said


async def test_a_credit_is_on_the_next_invoice_and_at_most_the_whole(
    invoiced: tuple[Months, str],
) -> None:
    months, path = invoiced
    for amount, expected in [("9.00", 200), ("40.01", 409), ("40.00", 200), ("0.01", 409)]:
        said = await post(months.service, f"{path}/credits", {"amount": amount, "reason": "outage"})
        assert said[0] == expected, (amount, said)
    await months.use("ada", 100)
    await months.end_of_period("ada")
    _, second = await months.invoices()
    assert await months.lines(second) == [
        ("base_fee", "49.00"), ("credit", "-9.00"), ("credit", "-40.00"), ("usage", "1.00"),
    ]  # fmt: skip
    assert second.total == Decimal(1)


async def test_credit_that_a_voided_invoice_used_is_there_again(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    await months.sql.execute("UPDATE subscriptions SET credit = 60")
    await months.end_of_period("ada")
    _, second = await months.invoices()
    assert (second.subtotal, second.total) == (Decimal(49), Decimal(0))
    assert await months.sql.fetchval("SELECT credit FROM subscriptions") == 11
    # All of it was paid by credit: it is no longer open.
    assert (await post(months.service, f"/invoices/{second.invoice_id}/void", {"reason": "x"}))[
        0
    ] == 409
    await months.sql.execute("UPDATE subscriptions SET credit = 20")
    await months.end_of_period("ada")
    third = (await months.invoices())[2]
    assert third.total == Decimal(29)
    path = f"/invoices/{third.invoice_id}/void"
    assert (await post(months.service, path, {"reason": "x"}))[0] == 200
    assert await months.sql.fetchval("SELECT credit FROM subscriptions") == 20


@pytest.mark.parametrize(
    "body",
    [
        {}, {"amount": "1"}, {"amount": 1, "reason": "x"}, {"amount": "-1", "reason": "x"},
        {"amount": "1e3", "reason": "x"}, {"amount": "NaN", "reason": "x"},
        {"amount": "1", "reason": ""}, {"amount": "1", "reason": "x" * 201},
        {"amount": "1", "reason": "x", "colour": "red"},
    ],
    ids=str,
)  # fmt: skip
async def test_a_bad_credit_is_refused(invoiced: tuple[Months, str], body: Any) -> None:
    months, path = invoiced
    assert (await post(months.service, f"{path}/credits", body))[0] == 400


async def test_only_finance_and_admins_may_and_each_is_audited(
    invoiced: tuple[Months, str],
) -> None:
    months, path = invoiced
    credit = {"amount": "1", "reason": "outage"}
    for role in ("user", "org_admin", "service"):
        for verb in ("issue", "void", "credits"):
            token = months.service.token(role, user="ada", organizations=["acme"])
            status, _, _ = await months.service.post(f"{path}/{verb}", credit, headers=token)
            assert status == 403
    assert (await post(months.service, f"{path}/credits", {"amount": "0", "reason": "x"}))[0] == 409
    assert (await post(months.service, f"{path}/credits", credit, role="admin"))[0] == 200
    await post(months.service, f"{path}/void", {"reason": "mistake"})  # credited: refused
    events = await months.sql.fetch(
        "SELECT event_type, actor, details ->> 'reason' AS reason FROM audit_events"
        " WHERE event_type LIKE 'invoice%' AND actor <> 'ledger' ORDER BY occurred_at"
    )
    assert [tuple(one) for one in events] == [("invoice_credited", "admin-dev", "outage")]


@pytest.mark.parametrize("action", ["void", "credits"])
@pytest.mark.parametrize("reason", ["a\0b", "a\nb", "", "x" * 201], ids=repr)
async def test_a_reason_that_cannot_be_kept_changes_nothing(
    invoiced: tuple[Months, str], action: str, reason: str
) -> None:
    months, path = invoiced
    body = {"reason": reason} | ({"amount": "1.00"} if action == "credits" else {})
    status, said = await post(months.service, f"{path}/{action}", body)
    assert (status, said["type"]) == (400, "urn:billing:problem:invalid-request")
    assert [one.status for one in await months.invoices()] == ["open"]
