"""HTTP in, HTTP out, of the audit trail: one method per route of the table."""

from __future__ import annotations

from aiohttp import web

from gateway import messages
from gateway.audit import Audit
from gateway.audit_messages import AuditEventQuery, VerifyQuery
from gateway.http import caller, json_answer


class AuditHandlers:
    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def list_audit_events(self, request: web.Request) -> web.Response:
        principal = caller(request)
        query = messages.query(AuditEventQuery, request.query)
        return json_answer(await self._audit.page(principal, query))

    async def verify_audit(self, request: web.Request) -> web.Response:
        principal = caller(request)
        query = messages.query(VerifyQuery, request.query)
        return json_answer(await self._audit.verify(principal, query))
