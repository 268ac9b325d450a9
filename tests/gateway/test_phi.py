"""What identifies a person is refused wherever a text enters, and is nowhere afterwards."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.conftest import BASE, Service
from tests.gateway.test_hot_path import Client, alike, request

CANARY = "219-09-9137"
SOMETHING = "01a20255-c9e5-72ee-a80c-079130b4c9bb"
KEY = {"Idempotency-Key": f"job {CANARY}"}


def usage(**said: Any) -> dict[str, Any]:
    return {"user_id": "ada", "usage_type": "api_calls", "quantity": 1, **said}


def organization(**said: Any) -> dict[str, Any]:
    return {"name": "Clinic North", **said}


PLAN: dict[str, Any] = {
    "tier": "phi", "name": f"For {CANARY}", "currency": "USD", "interval": "month",
    "base_fee": "1.00", "trial_days": 0, "premium": False, "entitlements": [], "prices": [],
}  # fmt: skip
BEGIN = {"user_id": "ada", "plan_tier": "professional"}
Sent = tuple[str, str, Any, dict[str, str]]
# Anybody may in dev; the rest takes an admin.
BY_SERVICE = re.compile("/usage$|/usage/batch$|/quota/check$")

USAGE: dict[str, Sent] = {
    "metadata": ("POST", "/usage", usage(metadata={"feature": f"call-{CANARY}"}), {}),
    "an id of metadata": ("POST", "/usage", usage(metadata={"conversation_id": CANARY}), {}),
    "a model": ("POST", "/usage", usage(metadata={"ai_model_used": CANARY}), {}),
    "a user": ("POST", "/usage", usage(user_id=CANARY), {}),
    "an organisation": ("POST", "/usage", usage(organization_id=CANARY), {}),
    "a key": ("POST", "/usage", usage(idempotency_key=f"job-{CANARY}"), {}),
    "a key in the header": ("POST", "/usage", usage(), KEY),
}
OTHERS: dict[str, Sent] = {
    "the key of a batch": ("POST", "/usage/batch", {"records": [usage()]}, KEY),
    "a question": ("POST", "/quota/check", usage(user_id=CANARY), {}),
    "a path": ("GET", f"/quota/{CANARY}", None, {}),
    "a query": ("GET", f"/usage?user_id={CANARY}", None, {}),
    "the reason of a correction": (
        "POST", f"/usage/{SOMETHING}/corrections",
        {"quantity": 1, "reason": f"asked by {CANARY}", "idempotency_key": "k"}, {},
    ),
    "the key of a correction": (
        "POST", f"/usage/{SOMETHING}/corrections", {"quantity": 1, "reason": "again"}, KEY,
    ),
    "the reason of a void": (
        "POST", f"/invoices/{SOMETHING}/void", {"reason": f"for {CANARY}"}, {},
    ),
    "the reason of a credit": (
        "POST", f"/invoices/{SOMETHING}/credits", {"amount": "1", "reason": CANARY}, {},
    ),
    "the key of a credit": (
        "POST", f"/invoices/{SOMETHING}/credits", {"amount": "1", "reason": "agreed"}, KEY,
    ),
    "the name of a plan": ("PUT", "/plans/phi", PLAN, {}),
    "a usage type": ("PUT", "/usage-types/phi", {"decimal_places": 0, "description": CANARY}, {}),
    "who begins": ("POST", "/subscriptions", BEGIN | {"user_id": CANARY}, {}),
    "the key of a beginning": ("POST", "/subscriptions", BEGIN, KEY),
    "terms": ("POST", "/subscriptions", BEGIN | {"overrides": {"name": f"x {CANARY}"}}, {}),
    "the name of an organisation": ("PUT", "/organizations/c", organization(name=CANARY), {}),
    "a hold": (
        "PUT", "/organizations/c",
        organization(legal_hold=True, legal_hold_reason=f"matter of {CANARY}"), {},
    ),
    "a cost centre": ("PUT", "/organizations/c", organization(cost_centers={CANARY: "1"}), {}),
    "its line": ("PUT", "/organizations/c", organization(cost_centers={"icu": CANARY}), {}),
    "a contact": (
        "PUT", "/organizations/c",
        organization(billing_contact={"name": CANARY, "email": "pay@clinic.example"}), {},
    ),
    "its address": (
        "PUT", "/organizations/c",
        organization(billing_contact={"name": "Desk", "email": f"{CANARY}@clinic.example"}), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", USAGE | OTHERS)
async def test_a_text_with_it_is_refused_neither_repeated_nor_logged(
    shared: Service, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    method, path, body, headers = (USAGE | OTHERS)[place]
    token = {} if body is None or BY_SERVICE.search(path) else shared.token("admin")
    async with shared.http.request(
        method, f"{shared.url}{BASE}{path}", json=body, headers=token | headers
    ) as response:
        said = await response.text()
        assert (response.status, json.loads(said)["type"]) == (
            400, "urn:billing:problem:phi-rejected"
        ), said  # fmt: skip
        assert CANARY not in said + str(response.headers)
    logged = capsys.readouterr()
    assert CANARY not in logged.out + logged.err


@pytest.mark.parametrize("place", USAGE)
async def test_both_ways_and_a_batch_refuse_it_in_the_same_words(
    shared: Service, place: str
) -> None:
    _, path, body, headers = USAGE[place]
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    sent = json.dumps(body).encode()
    client = await Client.of(shared)
    hot = alike(await client.ask(request(sent, f"{BASE}{path}", **named)))
    slow = alike(await client.ask(request(sent, f"{BASE}{path}?", **named)))
    client.writer.close()
    assert hot == slow
    if not headers:
        _, batch, _ = await shared.post("/usage/batch", {"records": [body, usage()]})
        assert batch["accepted"] == 1
        alone = json.loads(hot[2])
        alone.pop("instance")
        assert batch["results"][0] == alone


async def test_a_path_with_it_is_not_repeated_by_any_problem(shared: Service) -> None:
    for path in (f"/invoices/{CANARY}", f"/nothing/{CANARY}"):
        status, said, _ = await shared.get(path, headers=shared.token("admin"))
        assert (status, "instance" in said) == (404, False)
    _, said, _ = await shared.get("/invoices/nothing", headers=shared.token("admin"))
    assert said["instance"] == f"{BASE}/invoices/nothing"


async def test_it_is_in_no_row_no_key_of_redis_and_no_metric(shared: Service) -> None:
    for _, path, body, headers in USAGE.values():
        await shared.post(path, body, headers=headers)
    await shared.drained()
    for table in ("audit_events", "usage_records", "dead_letters", "control_keys"):
        rows = await shared.sql.fetch(f"SELECT t::TEXT AS row FROM {table} t")  # noqa: S608
        assert CANARY not in str(rows)
    for partition in range(shared.settings.partitions):
        entries = await shared.redis.run("XRANGE", f"usage:{{p{partition:02d}}}", "-", "+")
        assert CANARY not in str(entries)
    async with shared.http.get(f"{shared.url}/metrics") as response:
        assert response.status == 200 and CANARY not in await response.text()


@pytest.mark.parametrize(
    "metadata",
    [
        {"conversation_id": "789e0123-e89b-12d3-a456-426614174000", "ai_model_used": "qwen2.5-7b"},
        {"ai_model_used": "gpt-4o-2024-08-06", "feature": "patient-intake"},
        {"ai_model_used": "bert-2018-10-31"},
        {"cost_center": "4100-20", "department": "7-North", "request_id": "req-2026-11-22-0001"},
    ],
)
async def test_ordinary_metadata_passes(shared: Service, metadata: dict[str, str]) -> None:
    status, said, _ = await shared.post("/usage", usage(metadata=metadata))
    assert status == 201, said


async def test_an_organisation_may_be_named_for_a_person_and_have_a_contact(
    shared: Service,
) -> None:
    named = organization(
        name="Patient Mary Jones Clinic, 12 Main Street",
        billing_contact={"name": "Mrs. Lovelace", "email": "ada@lovelace.example"},
    )
    async with shared.http.put(
        f"{shared.url}{BASE}/organizations/lovelace", json=named, headers=shared.token("admin")
    ) as response:
        assert response.status == 201
