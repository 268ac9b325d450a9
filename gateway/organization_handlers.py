"""HTTP in, HTTP out, of organisations: one method per route of the table."""

from __future__ import annotations

from aiohttp import web

from gateway import messages
from gateway.http import body_of, caller, json_answer
from gateway.organization_messages import OrganizationListQuery
from gateway.organizations import Organizations


class OrganizationHandlers:
    def __init__(self, organizations: Organizations) -> None:
        self._organizations = organizations

    async def list_organizations(self, request: web.Request) -> web.Response:
        principal = caller(request)
        query = messages.query(OrganizationListQuery, request.query)
        return json_answer(await self._organizations.page(principal, query))

    async def read_organization(self, request: web.Request) -> web.Response:
        principal = caller(request)
        body, headers = await self._organizations.read(
            principal, request.match_info["organization_id"]
        )
        return json_answer(body, headers=headers)

    async def put_organization(self, request: web.Request) -> web.Response:
        principal = caller(request)
        body, is_new, headers = await self._organizations.put(
            principal,
            request.match_info["organization_id"],
            await body_of(request),
            request.headers.get("If-Match"),
        )
        return json_answer(body, 201 if is_new else 200, headers)
