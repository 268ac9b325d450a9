"""HTTP in, HTTP out, of the catalogue: one method per route of the table."""

from __future__ import annotations

from aiohttp import web

from gateway import messages
from gateway.catalogue import Catalogue
from gateway.catalogue_messages import PlanQuery
from gateway.http import body_of, caller, json_answer
from gateway.plan_migrations import PlanMigrations


class CatalogueHandlers:
    def __init__(self, catalogue: Catalogue, migrations: PlanMigrations) -> None:
        self._catalogue = catalogue
        self._migrations = migrations

    async def list_plans(self, request: web.Request) -> web.Response:
        return json_answer(await self._catalogue.plans(caller(request)))

    async def read_plan(self, request: web.Request) -> web.Response:
        principal = caller(request)
        query = messages.query(PlanQuery, request.query)
        body, headers = await self._catalogue.plan(principal, request.match_info["tier"], query)
        return json_answer(body, headers=headers)

    async def put_plan(self, request: web.Request) -> web.Response:
        principal = caller(request)
        body, headers = await self._catalogue.put_plan(
            principal,
            request.match_info["tier"],
            await body_of(request),
            request.headers.get("If-Match"),
        )
        return json_answer(body, headers=headers)

    async def migrate_plan(self, request: web.Request) -> web.Response:
        principal = caller(request)
        body, headers = await self._migrations.ask(
            principal,
            request.match_info["tier"],
            await body_of(request) if request.can_read_body else b"",
        )
        return json_answer(body, 202, headers)

    async def read_migration(self, request: web.Request) -> web.Response:
        principal = caller(request)
        found = request.match_info
        return json_answer(
            await self._migrations.read(principal, found["tier"], found["migration_id"])
        )

    async def list_usage_types(self, request: web.Request) -> web.Response:
        return json_answer(await self._catalogue.usage_types(caller(request)))

    async def put_usage_type(self, request: web.Request) -> web.Response:
        principal = caller(request)
        name = request.match_info["usage_type"]
        return json_answer(
            await self._catalogue.put_usage_type(principal, name, await body_of(request))
        )
