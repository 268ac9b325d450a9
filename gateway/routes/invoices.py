"""Invoices."""

from __future__ import annotations

from gateway import invoice_messages as invoices
from gateway import subscription_messages as subscriptions
from gateway.auth.rights import Action
from gateway.route import BASE, Route

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=f"{BASE}/invoices",
        name="list_invoices",
        action=Action.READ_SUBSCRIPTION,
        summary="Invoices, newest first",
        query=invoices.InvoiceQuery,
        answers={200: invoices.InvoiceList},
        refuses=(400, 404),
    ),
    Route(
        method="GET",
        path=f"{BASE}/invoices/upcoming/{{user_id}}",
        name="upcoming_invoice",
        action=Action.READ_SUBSCRIPTION,
        summary="What the running period of a subscription comes to so far",
        query=subscriptions.SubscriptionQuery,
        answers={200: invoices.UpcomingAnswer},
        refuses=(400, 404),
    ),
    Route(
        method="GET",
        path=f"{BASE}/invoices/{{invoice_id}}",
        name="read_invoice",
        action=Action.READ_SUBSCRIPTION,
        summary="One invoice with its lines",
        answers={200: invoices.InvoiceAnswer},
        refuses=(404,),
    ),
    Route(
        method="POST",
        path=f"{BASE}/invoices/{{invoice_id}}/issue",
        name="issue_invoice",
        action=Action.CHANGE,
        summary="Issue an invoice that was parked",
        answers={200: invoices.InvoiceAnswer},
        refuses=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{BASE}/invoices/{{invoice_id}}/void",
        name="void_invoice",
        action=Action.CHANGE,
        summary="Nothing of an invoice is to be paid; its usage is written off",
        takes=invoices.ReasonRequest,
        answers={200: invoices.InvoiceAnswer},
        refuses=(400, 404, 408, 409, 413, 415),
    ),
    Route(
        method="POST",
        path=f"{BASE}/invoices/{{invoice_id}}/credits",
        name="credit_invoice",
        action=Action.CHANGE,
        summary="Give back some of an invoice, on the next one",
        takes=invoices.CreditRequest,
        headers=("Idempotency-Key",),
        answers={200: invoices.InvoiceAnswer},
        refuses=(400, 404, 408, 409, 413, 415, 422),
    ),
    Route(
        method="GET",
        path=f"{BASE}/invoices/{{invoice_id}}/lines/{{line_id}}/usage",
        name="invoice_line_usage",
        action=Action.READ_SUBSCRIPTION,
        summary="The usage records behind a line, newest first",
        query=invoices.PageQuery,
        answers={200: invoices.LineUsageList},
        refuses=(400, 404),
    ),
)
