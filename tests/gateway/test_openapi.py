"""The OpenAPI document: valid, complete, and true."""

from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import validate

from gateway.routes import ROUTES
from tests.conftest import Service
from tests.ledger.plans import allows, on_plan


@pytest.fixture(scope="module")
async def document(shared: Service) -> dict[str, Any]:
    async with shared.http.get(f"{shared.url}/openapi.json") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        found: dict[str, Any] = await response.json()
        return found


async def test_it_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)


async def test_every_route_is_in_it_and_nothing_else(document: dict[str, Any]) -> None:
    listed = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert listed == {(one.method, one.path) for one in ROUTES if not one.test_only}


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in _values(document, "$ref"):
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def _values(node: Any, name: str) -> list[Any]:
    if isinstance(node, dict):
        own = [node[name]] if name in node else []
        return own + [one for value in node.values() for one in _values(value, name)]
    if isinstance(node, list):
        return [one for value in node for one in _values(value, name)]
    return []


async def test_the_examples_work_when_sent(shared: Service, document: dict[str, Any]) -> None:
    [example] = document["components"]["schemas"]["UsageRequest"]["examples"]
    assert (await shared.post("/usage", example))[0] == 201
    assert (await shared.post("/usage/batch", {"records": [example]}))[1]["accepted"] == 1


async def test_quantities_are_described_as_numbers(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name, field in [
        ("UsageRequest", "quantity"),
        ("CheckRequest", "quantity"),
        ("QuotaEntry", "used"),
        ("UsageRecordAnswer", "quantity"),
    ]:
        assert schemas[name]["properties"][field]["type"] == "number", (name, field)


async def test_the_statuses_a_caller_can_meet_are_documented(
    shared: Service, document: dict[str, Any]
) -> None:
    await on_plan(shared.sql, "met", allows("api_calls", "1"))
    await on_plan(shared.sql, "paused", allows("api_calls", "1"), status="paused")
    await on_plan(shared.sql, "settled", allows("api_calls", "1"), organization="clinic")
    one = {"user_id": "met", "usage_type": "api_calls", "quantity": 1}
    other = {**one, "user_id": "settled", "organization_id": "other"}
    admin, user = shared.token("admin"), shared.token("user", user="someone")
    bad = {"Authorization": "Bearer x"}
    seen: set[tuple[str, str, int]] = set()

    async def see(method: str, route: str, path: str | None = None, **options: Any) -> None:
        url = f"{shared.url}/api/v1/billing{path or route}"
        async with shared.http.request(method, url, **options) as response:
            seen.add((method, f"/api/v1/billing{route}", response.status))

    key = {"Idempotency-Key": "k"}
    await see("POST", "/usage", json=one, headers=key)
    await see("POST", "/usage", json={**one, "quantity": 2}, headers=key)
    options: dict[str, Any]
    for route, body in [
        ("/usage", one),
        ("/quota/check", one),
        ("/usage/batch", {"records": [one]}),
    ]:
        for options in (
            {"json": body},
            {"json": {}},
            {"json": other},
            {"json": {**one, "user_id": "paused"}},
            {"data": b"x"},
            {"data": b"x" * 3_000_000, "headers": {"Content-Type": "application/json"}},
            {"json": body, "headers": bad},
            {"json": body, "headers": admin},
        ):
            await see("POST", route, **options)
    for route, paths in [
        ("/usage", ["/usage?user_id=met", "/usage", "/usage?organization_id=other"]),
        ("/quota/{user_id}", ["/quota/met", "/quota/met?x=1", "/quota/settled?organization_id=o"]),
        (
            "/subscription/{user_id}",
            ["/subscription/met", "/subscription/met?scope=organization&organization_id=o"],
        ),
    ]:
        for path in paths:
            for headers in ({}, admin, user, bad, shared.token("org_admin", organizations=["a"])):
                await see("GET", route, path, headers=headers)
    assert {status for _, _, status in seen} >= {
        200, 201, 400, 401, 403, 404, 409, 413, 415, 422, 429,
    }  # fmt: skip
    documented = {
        (method.upper(), path, int(status))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for status in operation["responses"]
    }
    assert seen - documented == set()
