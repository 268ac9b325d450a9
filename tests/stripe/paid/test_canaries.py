"""Names and other words of people are everywhere in the data, and nothing of them leaves."""

from __future__ import annotations

from random import Random
from typing import Any
from uuid import UUID

import msgspec
import pytest

from ledger import clock as real_clock
from ledger import store
from ledger.domain.ids import dev_uuid
from tests.conftest import Service
from tests.invoices.conftest import TYPE, Months
from tests.ledger.plans import add_plan, allows, pool
from tests.stripe.owed.shop import Worker
from tests.stripe.paid.conftest import Till
from tests.stripe_fake.clock import Clock
from tests.stripe_fake.scan import CANARIES, leaks
from tests.stripe_fake.server import FakeStripe

NAMED, ORGANIZATION, USER = CANARIES["usage type"], "clinic", "ada"
PRICES = [{"usage_type": one, "model": "per_unit", "unit_amount": "0.50"} for one in (TYPE, NAMED)]
DESCRIBED = {
    "name": CANARIES["organization"],
    "cost_centers": {CANARIES["cost center"]: CANARIES["cost center"]},
    "billing_contact": {"name": CANARIES["contact"], "email": CANARIES["e-mail"]},
}


@pytest.fixture
async def till(service: Service, fake: FakeStripe, clock: Clock, api: Any) -> Till:
    """Nothing of it is in Stripe yet."""
    return Till(Months(service, park_above=1_000_000), fake, clock, api)


async def said(service: Service, method: str, path: str, body: Any, key: str = "") -> Any:
    headers = {**service.token("finance"), **({"Idempotency-Key": key} if key else {})}
    url = f"{service.url}/api/v1/billing{path}"
    async with service.http.request(method, url, json=body, headers=headers) as answer:
        assert answer.status < 300, (path, await answer.text())
        return await answer.json()


async def seeded(till: Till) -> None:
    """A month of a described organisation, with a correction, a credit and a void."""
    months, service = till.months, till.months.service
    await said(service, "PUT", f"/organizations/{ORGANIZATION}", DESCRIBED)
    await till.sql.execute(
        "INSERT INTO usage_types (usage_type, decimal_places, unit) VALUES ($1, 0, 1)", NAMED
    )
    limits = [limit for one in (TYPE, NAMED) for limit in (allows(one, None), pool(one, None))]
    await add_plan(till.sql, CANARIES["plan"], *limits)
    await till.sql.execute(
        "UPDATE billing_plans SET base_fee = 49, prices = $2 WHERE plan_tier = $1",
        CANARIES["plan"],
        msgspec.json.encode(PRICES).decode(),
    )
    await months.create(USER, CANARIES["plan"], organization=ORGANIZATION)
    told: dict[str, Any] = {
        "metadata": {"department": CANARIES["metadata"]},
        "organization_id": ORGANIZATION,
    }
    corrected = await months.use(USER, 9, **told)
    await months.use(USER, 7, **told, usage_type=NAMED)
    await service.drained()
    body = {"quantity": -2, "reason": CANARIES["correction"]}
    await said(service, "POST", f"/usage/{corrected}/corrections", body, CANARIES["key"])
    opening = (await months.invoices())[-1].invoice_id
    body = {"amount": "5.00", "reason": CANARIES["credit"]}
    await said(service, "POST", f"/invoices/{opening}/credits", body, CANARIES["key"])
    await months.end_of_period(USER, ORGANIZATION)
    till.invoice_id = opening


async def test_of_all_that_people_typed_nothing_leaves(till: Till) -> None:
    await seeded(till)
    await deliver(till)
    newest = (await till.months.invoices())[-1].invoice_id
    body = {"reason": CANARIES["void"]}
    await said(till.months.service, "POST", f"/invoices/{newest}/void", body)
    await deliver(till)
    till.stripe_id = (await till.invoice()).stripe_invoice_id or ""
    till.fail()
    await till.tell()
    await till.look()
    assert await store.payments.owed_by_step(till.sql) == {"owed": 1}
    assert await unseeded(till) == []
    descriptions = {one["description"] for one in till.fake.books.all("invoiceitem")}
    assert {"Usage: API calls, 7", "Usage: other usage, 7", "Credit"} <= descriptions
    assert {one["status"] for one in till.fake.books.all("invoice")} == {"open", "void"}
    assert await store.stripe_calls.parked(till.sql) == []
    assert till.fake.leaks == []


async def deliver(till: Till) -> None:
    till.clock.advance(real_clock.now() - till.clock.now())  # finance acts at the real time
    worker = Worker(till.sql, till.api, till.clock.now, Random(1))
    while await worker.run_once():
        pass


async def unseeded(till: Till) -> list[str]:
    """Canaries that are nowhere in the ledger, of whose absence in Stripe nothing would follow."""
    tables = await till.sql.fetch(
        "SELECT format('SELECT t::TEXT FROM %I t', relname) FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = 'public'::REGNAMESPACE"
    )
    rows = [row[0] for [table] in tables for row in await till.sql.fetch(table)]
    whole = "\n".join(rows)
    return [name for name, word in CANARIES.items() if name != "line" and word not in whole]


ONE = UUID("1c6f7f0e-52a5-4f5e-8a2e-0d3b6f1f5a01")
SOUND: dict[str, Any] = {
    "path": "/v1/invoiceitems",
    "headers": {"Idempotency-Key": f"billing-item-{ONE}"},
    "text": "",
    "params": {"amount": "1", "metadata": {"billing_id": str(ONE)}},
}


@pytest.mark.parametrize(
    "leak",
    [
        {"path": f"/v1/customers/{dev_uuid(USER)}"},
        {"path": "/v1/customers/cus_1/maria@example.org"},
        {"headers": {"X-Patient": "1"}},
        {"headers": {"User-Agent": "billing of Maria Musterfrau Clinic"}},
        {"headers": {"Idempotency-Key": CANARIES["key"]}},
        {"params": {"description": "Usage: canary_dialysis, 7"}},
        {"params": {"description": "Base fee for Jane Roe"}},
        {"params": {"name": "x"}},
        {"params": {"metadata": {"department": "icu"}}},
        {"params": {"metadata": {"billing_id": "MRN-00471147"}}},
        {"text": "a=Maria+Musterfrau+Clinic"},
        {"text": "a=erika.mustermann%40clinic.example"},
    ],
    ids=str,
)
def test_the_scan_finds_what_must_not_leave(leak: dict[str, Any]) -> None:
    assert leaks(**SOUND) == []
    assert leaks(**{**SOUND, **leak}) != []
