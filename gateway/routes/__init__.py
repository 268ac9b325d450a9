"""Every route once, by subject: how it is reached, what it takes and gives. The application and the
OpenAPI document are both made from this table."""

from __future__ import annotations

from gateway.route import Route
from gateway.routes import (
    audit,
    catalogue,
    invoices,
    organizations,
    service,
    stripe,
    subscriptions,
    usage,
)

ROUTES: tuple[Route, ...] = (
    *usage.ROUTES,
    *subscriptions.ROUTES,
    *organizations.ROUTES,
    *catalogue.ROUTES,
    *invoices.ROUTES,
    *stripe.ROUTES,
    *audit.ROUTES,
    *service.ROUTES,
)
