"""HTTP in, HTTP out, of subscriptions: one method per route of the table."""

from __future__ import annotations

from aiohttp import web

from gateway import messages
from gateway.http import body_of, caller, json_answer
from gateway.subscription_changes import SubscriptionChanges
from gateway.subscription_messages import (
    HistoryQuery,
    SubscriptionListQuery,
    SubscriptionQuery,
)
from gateway.subscriptions import Subscriptions
from ledger.wishes import Verb


class SubscriptionHandlers:
    def __init__(
        self,
        subscriptions: Subscriptions,
        changes: SubscriptionChanges,
    ) -> None:
        self._subscriptions = subscriptions
        self._changes = changes

    async def read_subscription(self, request: web.Request) -> web.Response:
        principal = caller(request)
        query = messages.query(SubscriptionQuery, request.query)
        body, headers = await self._subscriptions.read(
            principal, request.match_info["user_id"], query
        )
        return json_answer(body, headers=headers)

    async def subscription_history(self, request: web.Request) -> web.Response:
        principal = caller(request)
        query = messages.query(HistoryQuery, request.query)
        return json_answer(
            await self._subscriptions.history(principal, request.match_info["user_id"], query)
        )

    async def list_subscriptions(self, request: web.Request) -> web.Response:
        principal = caller(request)
        query = messages.query(SubscriptionListQuery, request.query)
        return json_answer(await self._subscriptions.page(principal, query))

    async def create_subscription(self, request: web.Request) -> web.Response:
        principal = caller(request)
        body, headers = await self._changes.create(
            principal, await body_of(request), request.headers.get("Idempotency-Key")
        )
        return json_answer(body, 201, headers)

    async def change_subscription(self, request: web.Request) -> web.Response:
        return await self._act(request, "change")

    async def cancel_subscription(self, request: web.Request) -> web.Response:
        return await self._act(request, "cancel")

    async def uncancel_subscription(self, request: web.Request) -> web.Response:
        return await self._act(request, "uncancel")

    async def pause_subscription(self, request: web.Request) -> web.Response:
        return await self._act(request, "pause")

    async def resume_subscription(self, request: web.Request) -> web.Response:
        return await self._act(request, "resume")

    async def reactivate_subscription(self, request: web.Request) -> web.Response:
        return await self._act(request, "reactivate")

    async def _act(self, request: web.Request, verb: Verb) -> web.Response:
        principal = caller(request)
        body, headers = await self._changes.act(
            principal,
            request.match_info["user_id"],
            verb,
            messages.query(SubscriptionQuery, request.query),
            await body_of(request) if request.can_read_body else b"",
            request.headers.get("If-Match"),
        )
        return json_answer(body, headers=headers)
