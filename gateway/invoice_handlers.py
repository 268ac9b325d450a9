"""HTTP in, HTTP out, of invoices: one method per route of the table."""

from __future__ import annotations

from aiohttp import web

from gateway import messages
from gateway.http import body_of, caller, json_answer
from gateway.invoice_messages import InvoiceQuery, PageQuery
from gateway.invoices import Invoices
from gateway.subscription_messages import SubscriptionQuery


class InvoiceHandlers:
    def __init__(self, invoices: Invoices) -> None:
        self._invoices = invoices

    async def list_invoices(self, request: web.Request) -> web.Response:
        principal = caller(request)
        query = messages.query(InvoiceQuery, request.query)
        return json_answer(await self._invoices.page(principal, query))

    async def read_invoice(self, request: web.Request) -> web.Response:
        principal = caller(request)
        return json_answer(await self._invoices.read(principal, request.match_info["invoice_id"]))

    async def invoice_line_usage(self, request: web.Request) -> web.Response:
        principal = caller(request)
        query = messages.query(PageQuery, request.query)
        found = request.match_info
        return json_answer(
            await self._invoices.line_usage(principal, found["invoice_id"], found["line_id"], query)
        )

    async def issue_invoice(self, request: web.Request) -> web.Response:
        principal = caller(request)
        return json_answer(await self._invoices.issue(principal, request.match_info["invoice_id"]))

    async def void_invoice(self, request: web.Request) -> web.Response:
        principal = caller(request)
        invoice = request.match_info["invoice_id"]
        return json_answer(await self._invoices.void(principal, invoice, await body_of(request)))

    async def credit_invoice(self, request: web.Request) -> web.Response:
        principal = caller(request)
        invoice = request.match_info["invoice_id"]
        key = request.headers.get("Idempotency-Key")
        body, headers = await self._invoices.credit(principal, invoice, await body_of(request), key)
        return json_answer(body, headers=headers)

    async def upcoming_invoice(self, request: web.Request) -> web.Response:
        principal = caller(request)
        query = messages.query(SubscriptionQuery, request.query)
        return json_answer(
            await self._invoices.upcoming(principal, request.match_info["user_id"], query)
        )
