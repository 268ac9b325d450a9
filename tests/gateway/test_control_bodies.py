"""Whatever finance sends to change plans, subscriptions and invoices: a wrong body or path is a 4xx
problem, and nothing is stored."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import msgspec
import pytest
from yarl import URL

from tests.conftest import BASE, Service
from tests.gateway.test_catalogue import PLAN

OVERRIDES_WRONG = [
    b'{"name": "a\\u0000b"}',
    b'{"name": "a\\nb"}',
    b'{"name": "a\xff"}',
    b'{"base_fee": "1.00", "base_fee": "9.00"}',
    b'{"base_fee": "1.00", "base\\u005ffee": "9.00"}',
    b'{"base_fee": "1.00\\n"}',
    b'{"entitlements": [{"usage_type": "api_calls", "scope": "user", "limit": "1", "limit": "2",'
    b' "enforcement": "hard"}]}',
    b'{"name": ' + b"[" * 1000 + b"]" * 1000 + b"}",
]
PLAN_WRONG: list[dict[str, Any]] = [
    {"name": "a\0b"},
    {"name": "a\nb"},
    {"base_fee": "1.00\n"},
    {"currency": "USD\n"},
    {"entitlements": [PLAN["entitlements"][0] | {"limit": "10\n"}]},
]


async def send(service: Service, method: str, path: str, body: bytes) -> tuple[int, Any]:
    headers = service.token("admin") | {"Content-Type": "application/json"}
    url = URL(f"{service.url}{BASE}{path}", encoded=True)
    async with service.http.request(method, url, data=body, headers=headers) as response:
        return response.status, await response.json(content_type=None)


async def stored(service: Service) -> list[int]:
    return [
        await service.sql.fetchval(f"SELECT COUNT(*) FROM {table}")  # noqa: S608
        for table in ("billing_plans", "usage_types", "subscriptions", "audit_events")
    ]


@pytest.mark.parametrize("overrides", OVERRIDES_WRONG)
async def test_wrong_overrides_are_refused(shared: Service, overrides: bytes) -> None:
    before = await stored(shared)
    user = str(uuid4()).encode()
    body = b'{"user_id": "%s", "plan_tier": "professional", "overrides": %s}' % (user, overrides)
    status, said = await send(shared, "POST", "/subscriptions", body)
    assert (status, said["type"]) == (400, "urn:billing:problem:invalid-request")
    assert await stored(shared) == before


@pytest.mark.parametrize("wrong", PLAN_WRONG)
async def test_a_plan_with_wrong_text_is_refused(shared: Service, wrong: dict[str, Any]) -> None:
    before = await stored(shared)
    body = msgspec.json.encode(PLAN | wrong)
    assert (await send(shared, "PUT", "/plans/clinic", body))[0] == 400
    assert await stored(shared) == before


async def test_a_plan_whose_tier_ends_with_a_line_break_is_refused(shared: Service) -> None:
    body = msgspec.json.encode(PLAN | {"tier": "clinic\n"})
    assert (await send(shared, "PUT", "/plans/clinic%0a", body))[0] == 400


@pytest.mark.parametrize("twice", [b'"name": "x"', b'"base_fee": "1.00"', b'"prices": []'])
async def test_a_plan_that_names_a_field_twice_is_refused(shared: Service, twice: bytes) -> None:
    before = await stored(shared)
    body = msgspec.json.encode(PLAN)[:-1] + b", " + twice + b"}"
    status, said = await send(shared, "PUT", "/plans/clinic", body)
    assert (status, "twice" in said["detail"]) == (400, True)
    assert await stored(shared) == before


async def test_a_description_of_a_usage_type_that_cannot_be_stored_is_refused(
    shared: Service,
) -> None:
    body = b'{"decimal_places": 0, "description": "a\\u0000b"}'
    assert (await send(shared, "PUT", "/usage-types/scans", body))[0] == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/plans/%00"),
        ("POST", "/plans/%00/migrate"),
        ("GET", "/plans/a%00/migrations/00000000-0000-4000-8000-000000000001"),
        ("GET", "/organizations/%00"),
    ],
)
async def test_there_is_nothing_at_a_path_that_cannot_be_stored(
    shared: Service, method: str, path: str
) -> None:
    status, said = await send(shared, method, path, b"{}")
    assert (status, said["type"]) == (404, "urn:billing:problem:not-found")
