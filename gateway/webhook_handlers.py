"""HTTP in, HTTP out, of what Stripe tells."""

from __future__ import annotations

from aiohttp import web

from gateway.http import body_of, json_answer
from gateway.webhooks import MAX_EVENT, StripeWebhooks


class WebhookHandlers:
    def __init__(self, webhooks: StripeWebhooks) -> None:
        self._webhooks = webhooks

    async def stripe_webhook(self, request: web.Request) -> web.Response:
        # What is forged or old by its head alone is refused before any of its body is read.
        signature = self._webhooks.signature(request.headers.get("Stripe-Signature"))
        body = await body_of(request, MAX_EVENT)
        return json_answer(await self._webhooks.receive(signature, body))
