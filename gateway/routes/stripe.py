"""What Stripe tells."""

from __future__ import annotations

from gateway.route import BASE, Route
from gateway.webhooks import Received

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path=f"{BASE}/webhooks/stripe",
        name="stripe_webhook",
        summary="An event of Stripe's, by its signature: kept, and seen to afterwards",
        headers=("Stripe-Signature",),
        answers={200: Received},
        refuses=(400, 404, 408, 413, 415, 503),
        public=True,
    ),
)
