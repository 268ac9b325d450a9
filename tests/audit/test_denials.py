"""Denied access is in the audit trail: who, which route, how often; and no flood fills it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from gateway import denials
from gateway.auth import Action, Principal
from gateway.denials import CALLERS, KINDS, Denials
from gateway.dev.postgres import Postgres
from gateway.dev.servers import Valkey
from gateway.head import Target
from gateway.hotroutes import HotRoutes, Reply
from gateway.known import Unknown
from ledger import db
from tests.audit.conftest import AT
from tests.conftest import Service, Services
from tests.gateway.conftest import fresh
from tests.ledger.plans import allows, organization_on_plan

USAGE = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denials, "WINDOW_S", 3600)  # what is written, is written at the end
    monkeypatch.setattr(denials, "CLOSE_S", 60)


async def noted(connection: db.Connection) -> list[tuple[str, str, int | None, int]]:
    rows = await connection.fetch(
        "SELECT actor, details FROM audit_events WHERE event_type = 'access_denied'"
        " ORDER BY actor, details ->> 'route', details ->> 'status'"
    )
    said = [(row["actor"], msgspec.json.decode(row["details"])) for row in rows]
    return [(who, one["route"], one["status"], one["count"]) for who, one in said]


async def test_every_kind_of_denial_is_noted_and_nothing_else(services: Services) -> None:
    service = await services.start()
    await organization_on_plan(service.sql, "acme", allows("api_calls", "1"))
    user, ours = service.token("user", user="ada"), service.token("service", organizations=["acme"])
    foreign = {**USAGE, "organization_id": "other"}
    asked: list[tuple[str, str, Any, dict[str, str], int]] = [
        # On the raw hot path, and behind aiohttp.
        ("post", "/usage", USAGE, {"Authorization": "Bearer x"}, 401),
        ("get", "/plans", None, {"Authorization": "Bearer x"}, 401),
        ("post", "/usage", USAGE, user, 403),
        ("post", "/usage", foreign, ours, 403),
        ("post", "/usage/batch", {"records": [USAGE, foreign, foreign]}, ours, 200),
        ("get", "/audit/events", None, user, 403),
        ("get", "/quota/bob", None, user, 404),
        ("get", "/usage?organization_id=other", None, ours, 404),
        # No denials: a limit, a thing that there is not, a body that is wrong.
        ("post", "/usage", {**USAGE, "organization_id": "acme"}, ours, 429),
        ("get", "/plans/nothing", None, service.token("finance"), 404),
        ("post", "/usage", {}, ours, 400),
    ]
    for method, path, body, headers, status in asked:
        if method == "post":
            said = await service.post(path, body, headers=headers)
        else:
            said = await service.get(path, headers=headers)
        assert said[0] == status, (path, said)
    sql = await db.connect(service.settings.database_url)
    try:
        assert await noted(sql) == [], "nobody waited for Postgres"
        await services.stop()
        me = str(await sql.fetchval("SELECT MIN(actor) FROM audit_events WHERE actor ~ '-.*-'"))
        assert await noted(sql) == sorted(
            [
                (me, "list_audit_events", 403, 1),
                (me, "read_quota", 404, 1),
                (me, "record_usage", 403, 1),
                ("service-dev", "list_usage", 404, 1),
                ("service-dev", "record_usage", 403, 1),
                ("service-dev", "record_usage_batch", 403, 2),
                ("unknown", "list_plans", 401, 1),
                ("unknown", "record_usage", 401, 1),
            ]
        )
        texts = await sql.fetch("SELECT e::TEXT AS said FROM audit_events e")
        assert not [row for row in texts if "Bearer" in row["said"] or "bob" in row["said"]]
    finally:
        await sql.close()


def who(name: str) -> Principal:
    return Principal(subject=name, roles=frozenset())


@pytest.fixture
def times() -> Iterator[datetime]:
    return (AT + timedelta(seconds=number) for number in range(10**9))


@pytest.fixture(scope="module")
async def connected(
    postgres: Postgres,
    valkey: Valkey,
    _numbers: Iterator[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[db.Connection, db.Pool]]:
    """One database for all that need no gateway."""
    settings = await fresh(postgres, valkey, next(_numbers), tmp_path_factory.mktemp("data"))
    opened = await db.connect(settings.database_url)
    async with db.pool(settings.database_url, 2) as pool:
        yield opened, pool
    await opened.close()


@pytest.fixture
async def sql(connected: tuple[db.Connection, db.Pool]) -> db.Connection:
    await connected[0].execute("TRUNCATE audit_events")
    return connected[0]


@pytest.fixture
def counted(connected: tuple[db.Connection, db.Pool], times: Iterator[datetime]) -> Denials:
    return Denials(connected[1], lambda: next(times))


async def test_a_flood_of_one_caller_is_a_few_events_with_a_count(
    counted: Denials, sql: db.Connection
) -> None:
    for number in range(1000):
        counted.note(who("mallory"), f"route {number % 50}", 403)
        counted.note(None, f"route {number % 2}", 401)
    await counted.flush()
    found = await noted(sql)
    assert len(found) == KINDS + 1 + 2
    assert sum(count for actor, *_, count in found if actor == "mallory") == 1000
    assert [count for actor, *_, count in found if actor == "unknown"] == [500, 500]


async def test_a_flood_of_many_callers_is_a_few_events_with_a_count(
    counted: Denials, sql: db.Connection
) -> None:
    for number in range(500):
        counted.note(who(f"mallory {number}"), "record_usage", 403)
    await counted.flush()
    found = await noted(sql)
    assert len(found) == CALLERS + 1
    assert ("others", "others", None, 500 - CALLERS) in found
    await counted.flush()
    assert len(await noted(sql)) == CALLERS + 1, "each is written once"


async def test_what_cannot_be_written_is_written_later_with_what_came_meanwhile(
    counted: Denials, sql: db.Connection
) -> None:
    counted.note(who("mallory"), "record_usage", 403)
    await sql.execute("ALTER TABLE audit_events RENAME TO away")
    await counted.flush()
    counted.note(who("mallory"), "record_usage", 403)
    await sql.execute("ALTER TABLE away RENAME TO audit_events")
    await counted.flush()
    assert await noted(sql) == [("mallory", "record_usage", 403, 2)]
    details = msgspec.json.decode(await sql.fetchval("SELECT details FROM audit_events"))
    assert details["first_at"] < details["last_at"]


async def test_who_the_auth_service_was_asked_about_is_named() -> None:
    """On the raw hot path, where nobody is known at once by an opaque token."""
    told: list[tuple[str | None, str, int]] = []

    def denied(principal: Principal | None, route: str, status: int) -> None:
        told.append((principal.subject if principal else None, route, status))

    async def caller(*_: object) -> Principal:
        return who("mallory")

    def principal(*_: object) -> Principal:
        raise Unknown(caller)  # type: ignore[arg-type]

    async def record(caller: Principal, *_: object) -> None:
        caller.reach(Action.RECORD_USAGE)

    target = Target("record_usage", "/usage")
    head = SimpleNamespace(target=target, peer="::1", text=lambda _: "Bearer opaque")
    authenticator = SimpleNamespace(principal=principal, caller=caller)
    routes = HotRoutes(
        cast(Any, authenticator), cast(Any, SimpleNamespace(record=record)), cast(Any, None), denied
    )
    answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    routes.serve(cast(Any, head), b"", answered.set_result)
    assert (await answered).status == 403
    assert told == [("mallory", "record_usage", 403)]


async def test_the_gateway_writes_them_by_itself(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denials, "WINDOW_S", 0.02)
    service: Service = await services.start()
    assert (await service.get("/audit/verify", headers=service.token("user", user="a")))[0] == 403
    async with asyncio.timeout(30):
        while not await noted(service.sql):  # noqa: ASYNC110 - another process would tell nobody
            await asyncio.sleep(0.02)
    [(_, route, status, count)] = await noted(service.sql)
    assert (route, status, count) == ("verify_audit", 403, 1)
