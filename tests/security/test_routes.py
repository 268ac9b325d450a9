"""Every route of the application, asked about the clinic's nurse by every kind of caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from aiohttp import web

from gateway.app import _guarded
from gateway.auth import Action, Authenticator, Reach
from gateway.auth.rights import RIGHTS
from gateway.auth.tokens import Tokens
from gateway.dev.postgres import Postgres
from gateway.dev.servers import Valkey
from gateway.route import BASE, Route
from gateway.routes import ROUTES
from ledger.domain.ids import dev_uuid
from tests.auth_fake.server import FakeAuth, In, ec
from tests.conftest import Service
from tests.gateway.conftest import fresh, serving_alone
from tests.ledger.plans import allows, on_plan, organization_on_plan, pool
from tests.security.tokens import bearer

NURSE, VISITOR = str(dev_uuid("nurse")), str(dev_uuid("visitor"))
CLINIC, RIVAL = str(dev_uuid("clinic")), str(dev_uuid("rival"))
NOBODY = "00000000-0000-4000-8000-000000000000"
USAGE = {
    "user_id": NURSE,
    "organization_id": CLINIC,
    "usage_type": "api_calls",
    "quantity": 1,
}


class Kind(NamedTuple):
    """A kind of caller: its claims, whether it is of the clinic."""

    said: dict[str, Any]
    is_own: bool = True


STRANGER = ec("one")  # of the same id as the key that is published
NO_TOKEN = ("none", "expired", "forged", "opaque")
KINDS = {
    "user": Kind({"roles": ["user"], "sub": NURSE, "org": CLINIC}),
    "foreign user": Kind({"roles": ["user"], "sub": VISITOR, "org": RIVAL}, False),
    "org_admin": Kind({"roles": ["org_admin"], "org": CLINIC}),
    "foreign org_admin": Kind({"roles": ["org_admin"], "org": RIVAL}, False),
    "finance": Kind({"roles": ["finance"]}),
    "admin": Kind({"roles": ["admin"]}),
    "service": Kind({"roles": ["service"], "org": CLINIC}),
    "foreign service": Kind({"roles": ["service"], "org": RIVAL}, False),
    "service without a scope": Kind({"roles": ["service"], "org": CLINIC, "scope": ""}),
    "no role": Kind({"roles": [], "org": "*"}),
}


class Example(NamedTuple):
    """A request, what it is answered to who may see all, and to others what is not the same as
    that or, for a foreign thing, 404."""

    path: str
    answer: int
    body: Any = None
    but: dict[str, int] = {}  # noqa: RUF012  # not changed


HERE, MONEY = f"organization_id={CLINIC}", f"/invoices/{NOBODY}"
# Wrong on purpose: who may change things is told what is wrong, and nothing is changed.
EXAMPLES = {
    "record_usage": Example("/usage", 201, USAGE, {"foreign service": 403}),
    "record_usage_batch": Example(
        "/usage/batch", 200, {"records": [USAGE]}, {"foreign service": 200}  # each for itself
    ),
    "check_quota": Example("/quota/check", 200, USAGE, {"foreign service": 403}),
    "list_usage": Example(f"/usage?user_id={NURSE}&{HERE}", 200, None, {"foreign user": 403}),
    "read_quota": Example(f"/quota/{NURSE}?{HERE}", 200),
    "correct_usage": Example(f"/usage/{NOBODY}/corrections", 400, {}),
    "read_subscription": Example(f"/subscription/{NURSE}?{HERE}", 200),
    "subscription_history": Example(f"/subscription/{NURSE}/history?{HERE}", 200),
    "list_subscriptions": Example(
        f"/subscriptions?{HERE}", 200, None, {"user": 403, "foreign user": 403}
    ),
    "create_subscription": Example("/subscriptions", 400, {}),
    "list_organizations": Example(
        "/organizations", 200, None, {"org_admin": 403, "foreign org_admin": 403}
    ),
    "read_organization": Example(f"/organizations/{CLINIC}", 200),
    "put_organization": Example(f"/organizations/{CLINIC}", 400, {"x": 1}),
    "list_plans": Example("/plans", 200),
    "read_plan": Example("/plans/basic", 200),
    "put_plan": Example("/plans/basic", 400, {}),
    "migrate_plan": Example("/plans/nothing/migrate", 404, {}),
    "read_migration": Example(f"/plans/basic/migrations/{NOBODY}", 404),
    "list_usage_types": Example("/usage-types", 200),
    "put_usage_type": Example("/usage-types/x", 400, {}),
    "list_invoices": Example(f"/invoices?user_id={NURSE}&{HERE}", 200, None, {"foreign user": 403}),
    "read_invoice": Example(MONEY, 404),
    "upcoming_invoice": Example(f"/invoices/upcoming/{NURSE}?{HERE}", 404),
    "issue_invoice": Example(f"{MONEY}/issue", 404),
    "void_invoice": Example(f"{MONEY}/void", 400, {}),
    "credit_invoice": Example(f"{MONEY}/credits", 400, {}),
    "invoice_line_usage": Example(f"{MONEY}/lines/{NOBODY}/usage", 404),
    "list_audit_events": Example("/audit/events", 200),
    "verify_audit": Example("/audit/verify?limit=1", 200),
    "advance_clock": Example("/test-clock", 400, {}),
    **{
        f"{verb}_subscription": Example(f"/subscription/{NURSE}/{verb}", 400, {"x": 1})
        for verb in ("change", "cancel", "uncancel", "pause", "resume", "reactivate")
    },
}  # fmt: skip
GUARDED = [one for one in ROUTES if not one.public]
PUBLIC = [one for one in ROUTES if one.public]


class Gate(NamedTuple):
    """A gateway in production, and its auth service."""

    service: Service
    auth: FakeAuth

    def headers(self, name: str) -> dict[str, str]:
        match name:
            case "none":
                return {}
            case "expired":
                token = self.auth.signed(exp=In(-3600), roles=["admin"])
            case "forged":
                token = self.auth.signed(STRANGER, roles=["admin"])
            case "opaque":
                token = "2YotnFZFEjr1zCsicMWpAA"
            case _:
                token = self.auth.granted(**KINDS[name].said)
        return bearer(token)

    async def ask(self, route: Route, name: str) -> int:
        example = EXAMPLES[route.name]
        async with self.service.http.request(
            route.method,
            f"{self.service.url}{BASE}{example.path}",
            json=example.body,
            headers=self.headers(name),
        ) as response:
            await response.read()
            return response.status


@pytest.fixture(scope="module")
async def gate(
    postgres: Postgres,
    valkey: Valkey,
    _numbers: Iterator[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Gate]:
    settings = await fresh(postgres, valkey, next(_numbers), tmp_path_factory.mktemp("data"))
    async with FakeAuth() as auth:
        config = msgspec.structs.replace(
            settings,
            environment="production",
            test_clock=True,
            auth=auth.settings("keys", "introspection"),
        )
        async with serving_alone(config) as service:
            made = Gate(service, auth)
            await furnish(made)
            yield made


async def furnish(gate: Gate) -> None:
    for user, organization in (("nurse", "clinic"), ("visitor", "rival")):
        sql = gate.service.sql
        await on_plan(sql, user, allows("api_calls", "100"), organization=organization)
        await organization_on_plan(sql, organization, pool("api_calls", "900"))
    [record] = [one for one in ROUTES if one.name == "record_usage"]
    async with asyncio.timeout(20):  # until Redis was vouched for, and judged
        while await gate.ask(record, "service") != 201:
            await gate.service.drained()


def expected(route: Route, name: str) -> int:
    """By the role table, and by whose the thing is."""
    if name in NO_TOKEN:
        return 401
    kind, example = KINDS[name], EXAMPLES[route.name]
    assert route.action is not None
    [role] = kind.said["roles"] or [None]
    reach = RIGHTS[route.action].get(role, Reach.NONE)
    if reach is Reach.NONE or kind.said.get("scope") == "":
        return 403
    if name in example.but:
        return example.but[name]
    return example.answer if reach is Reach.ALL or kind.is_own else 404


@pytest.mark.parametrize("route", GUARDED, ids=[one.name for one in GUARDED])
async def test_a_route_answers_every_kind_of_caller_by_the_role_table(
    gate: Gate, route: Route
) -> None:
    kinds = [*NO_TOKEN, *KINDS]
    found = {name: await gate.ask(route, name) for name in kinds}
    assert found == {name: expected(route, name) for name in kinds}


async def test_every_route_that_the_application_has_is_in_the_table(gate: Gate) -> None:
    async with gate.service.http.get(f"{gate.service.url}/openapi.json") as response:
        document = await response.json()
    there = {
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
    }
    assert there == {one.name for one in ROUTES if not one.test_only}
    assert {one.name for one in GUARDED} == EXAMPLES.keys()
    assert {one.action for one in GUARDED} == set(Action) == RIGHTS.keys()
    changes = {"finance": Reach.ALL, "admin": Reach.ALL}
    reads = changes | {"org_admin": Reach.ORGANIZATIONS}
    assert {  # the contract's, once more: the rest of this file goes by the code's
        Action.RECORD_USAGE: {"service": Reach.ORGANIZATIONS},
        Action.READ_USAGE: reads | {"user": Reach.OWN, "service": Reach.ORGANIZATIONS},
        Action.READ_SUBSCRIPTION: reads | {"user": Reach.OWN},
        Action.READ_ORGANIZATION: reads,
        Action.CHANGE: changes,
        Action.MAKE_USAGE_TYPES: {"admin": Reach.ALL},
        Action.AUDIT: changes,
    } == RIGHTS
    assert not [one.name for one in PUBLIC if one.action is not None]


async def test_what_is_public_asks_for_no_token_and_looks_at_none(gate: Gate) -> None:
    assert {one.name for one in PUBLIC} == {
        "livez", "readyz", "metrics", "openapi", "stripe_webhook"
    }  # fmt: skip
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json"):
        for name in ("none", "forged"):
            async with gate.service.http.get(
                f"{gate.service.url}{path}", headers=gate.headers(name)
            ) as response:
                assert response.status == 200


async def test_a_route_that_says_nothing_is_not_served() -> None:
    route = Route(method="GET", path="/x", name="x", summary="", answers={})

    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    with pytest.raises(AssertionError, match="neither"):
        _guarded(route, handler, Authenticator(Tokens([], "billing"), anonymous=True))


async def test_a_dev_token_is_no_token_in_production(gate: Gate) -> None:
    headers = gate.service.token("admin")
    status, said, _ = await gate.service.get("/plans", headers=headers)
    assert (status, said["type"]) == (401, "urn:billing:problem:unauthorized")
