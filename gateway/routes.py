"""Every route once: how it is reached, what it takes and gives. The application and the OpenAPI
document are both made from this table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from gateway import catalogue_messages as catalogue
from gateway import corrections, messages
from gateway import invoice_messages as invoices
from gateway import subscription_messages as subscriptions
from gateway.probes import Ready
from gateway.test_clock import ClockAnswer, ClockRequest
from ledger.domain.plan import Plan

BASE = "/api/v1/billing"

Handler = Callable[[web.Request], Awaitable[web.Response]]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    path: str
    name: str
    summary: str
    answers: dict[int, Any]  # a tuple where there is more than one kind
    takes: Any = None
    query: Any = None
    headers: tuple[str, ...] = ()
    refuses: tuple[int, ...] = ()  # problems beyond 401, 403, 500 and 503
    public: bool = False  # needs no token
    test_only: bool = False  # with TEST_CLOCK


def _action(verb: str, summary: str, takes: Any) -> Route:
    """A change of a subscription; with `preview` it only shows what would come of it."""
    return Route(
        method="POST",
        path=f"{BASE}/subscription/{{user_id}}/{verb}",
        name=f"{verb}_subscription",
        summary=summary,
        takes=takes,
        query=subscriptions.SubscriptionQuery,
        headers=("If-Match",),
        answers={200: (subscriptions.SubscriptionAnswer, subscriptions.PreviewAnswer)},
        refuses=(400, 404, 408, 409, 412, 413, 415),
    )


ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path=f"{BASE}/usage",
        name="record_usage",
        summary="Record usage: counted and stored, or refused, in one step",
        takes=messages.UsageRequest,
        headers=("Idempotency-Key",),
        answers={201: messages.UsageAnswer},
        refuses=(400, 408, 409, 413, 415, 422, 429),
    ),
    Route(
        method="POST",
        path=f"{BASE}/usage/batch",
        name="record_usage_batch",
        summary="Record up to 1000 usages, each decided on its own",
        takes=messages.BatchRequest,
        headers=("Idempotency-Key",),
        answers={200: messages.BatchAnswer},
        refuses=(400, 408, 413, 415),
    ),
    Route(
        method="GET",
        path=f"{BASE}/usage",
        name="list_usage",
        summary="Recorded usage, newest first",
        query=messages.UsageQuery,
        answers={200: messages.UsageList},
        refuses=(400, 404),
    ),
    Route(
        method="POST",
        path=f"{BASE}/usage/{{usage_id}}/corrections",
        name="correct_usage",
        summary="Add to recorded usage, or take some of it back",
        takes=corrections.CorrectionRequest,
        headers=("Idempotency-Key",),
        answers={201: corrections.CorrectionAnswer},
        refuses=(400, 404, 408, 409, 413, 415, 422),
    ),
    Route(
        method="POST",
        path=f"{BASE}/quota/check",
        name="check_quota",
        summary="Would this quantity be admitted now? Writes nothing",
        takes=messages.CheckRequest,
        answers={200: messages.CheckAnswer},
        refuses=(400, 408, 409, 413, 415),
    ),
    Route(
        method="GET",
        path=f"{BASE}/quota/{{user_id}}",
        name="read_quota",
        summary="Every entitlement of a user with what is used of it",
        query=messages.AccountQuery,
        answers={200: messages.QuotaAnswer},
        refuses=(400, 404, 409),
    ),
    Route(
        method="GET",
        path=f"{BASE}/subscription/{{user_id}}",
        name="read_subscription",
        summary="The subscription of a user, or the default tier",
        query=subscriptions.SubscriptionQuery,
        answers={200: subscriptions.SubscriptionAnswer},
        refuses=(400, 404),
    ),
    Route(
        method="GET",
        path=f"{BASE}/subscription/{{user_id}}/history",
        name="subscription_history",
        summary="What a subscription was changed to, by whom, newest first",
        query=subscriptions.HistoryQuery,
        answers={200: subscriptions.HistoryAnswer},
        refuses=(400, 404),
    ),
    Route(
        method="GET",
        path=f"{BASE}/subscriptions",
        name="list_subscriptions",
        summary="Subscriptions, newest first, ended ones too",
        query=subscriptions.SubscriptionListQuery,
        answers={200: subscriptions.SubscriptionList},
        refuses=(400, 404),
    ),
    Route(
        method="POST",
        path=f"{BASE}/subscriptions",
        name="create_subscription",
        summary="Begin a subscription of a user or an organisation",
        takes=subscriptions.SubscriptionRequest,
        answers={201: subscriptions.SubscriptionAnswer},
        refuses=(400, 408, 409, 413, 415),
    ),
    _action("change", "Another plan, now or when the period ends", subscriptions.PlanChangeRequest),
    _action("cancel", "End now or when the period ends", subscriptions.CancelRequest),
    _action("uncancel", "Go on after all", subscriptions.ActionRequest),
    _action(
        "pause", "No usage, and no base fee from the next period on", subscriptions.ActionRequest
    ),
    _action("resume", "Go on after a pause", subscriptions.ActionRequest),
    _action("reactivate", "Begin again after the end", subscriptions.ActionRequest),
    Route(
        method="GET",
        path=f"{BASE}/plans",
        name="list_plans",
        summary="The newest version of every plan",
        answers={200: catalogue.PlanList},
    ),
    Route(
        method="GET",
        path=f"{BASE}/plans/{{tier}}",
        name="read_plan",
        summary="The newest version of a plan",
        answers={200: catalogue.PlanAnswer},
        refuses=(404,),
    ),
    Route(
        method="PUT",
        path=f"{BASE}/plans/{{tier}}",
        name="put_plan",
        summary="A new version of a plan; subscriptions stay on theirs",
        takes=Plan,
        headers=("If-Match",),
        answers={200: catalogue.PlanAnswer},
        refuses=(400, 408, 412, 413, 415),
    ),
    Route(
        method="GET",
        path=f"{BASE}/usage-types",
        name="list_usage_types",
        summary="What can be used, and with how many decimals",
        answers={200: catalogue.UsageTypeList},
    ),
    Route(
        method="PUT",
        path=f"{BASE}/usage-types/{{usage_type}}",
        name="put_usage_type",
        summary="A new usage type, or what is said about one",
        takes=catalogue.UsageTypeRequest,
        answers={200: catalogue.UsageTypeAnswer},
        refuses=(400, 408, 409, 413, 415),
    ),
    Route(
        method="GET",
        path=f"{BASE}/invoices",
        name="list_invoices",
        summary="Invoices, newest first",
        query=invoices.InvoiceQuery,
        answers={200: invoices.InvoiceList},
        refuses=(400, 404),
    ),
    Route(
        method="GET",
        path=f"{BASE}/invoices/upcoming/{{user_id}}",
        name="upcoming_invoice",
        summary="What the running period of a subscription comes to so far",
        query=subscriptions.SubscriptionQuery,
        answers={200: invoices.UpcomingAnswer},
        refuses=(400, 404),
    ),
    Route(
        method="GET",
        path=f"{BASE}/invoices/{{invoice_id}}",
        name="read_invoice",
        summary="One invoice with its lines",
        answers={200: invoices.InvoiceAnswer},
        refuses=(404,),
    ),
    Route(
        method="POST",
        path=f"{BASE}/invoices/{{invoice_id}}/issue",
        name="issue_invoice",
        summary="Issue an invoice that was parked",
        answers={200: invoices.InvoiceAnswer},
        refuses=(404, 409),
    ),
    Route(
        method="POST",
        path=f"{BASE}/invoices/{{invoice_id}}/void",
        name="void_invoice",
        summary="Nothing of an invoice is to be paid; its usage is written off",
        takes=invoices.ReasonRequest,
        answers={200: invoices.InvoiceAnswer},
        refuses=(400, 404, 408, 409, 413, 415),
    ),
    Route(
        method="POST",
        path=f"{BASE}/invoices/{{invoice_id}}/credits",
        name="credit_invoice",
        summary="Give back some of an invoice, on the next one",
        takes=invoices.CreditRequest,
        answers={200: invoices.InvoiceAnswer},
        refuses=(400, 404, 408, 409, 413, 415),
    ),
    Route(
        method="GET",
        path=f"{BASE}/invoices/{{invoice_id}}/lines/{{line_id}}/usage",
        name="invoice_line_usage",
        summary="The usage records behind a line, newest first",
        query=invoices.PageQuery,
        answers={200: messages.UsageList},
        refuses=(400, 404),
    ),
    Route(
        method="POST",
        path=f"{BASE}/test-clock",
        name="advance_clock",
        summary="Move the service's time forward and do what falls due",
        takes=ClockRequest,
        answers={200: ClockAnswer},
        refuses=(400, 408, 409, 413, 415),
        test_only=True,
    ),
    Route(
        method="GET",
        path="/livez",
        name="livez",
        summary="The process runs",
        answers={200: None},
        public=True,
    ),
    Route(
        method="GET",
        path="/readyz",
        name="readyz",
        summary="Usage can be taken; says what is degraded",
        answers={200: Ready, 503: Ready},
        public=True,
    ),
    Route(
        method="GET",
        path="/metrics",
        name="metrics",
        summary="Prometheus metrics",
        answers={200: None},
        public=True,
    ),
    Route(
        method="GET",
        path="/openapi.json",
        name="openapi",
        summary="This document",
        answers={200: None},
        public=True,
    ),
)
