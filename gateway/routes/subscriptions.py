"""Subscriptions, and what is done with one."""

from __future__ import annotations

from typing import Any

from gateway import subscription_messages as subscriptions
from gateway.auth.rights import Action
from gateway.route import BASE, Route


def _action(verb: str, summary: str, takes: Any) -> Route:
    """A change of a subscription; with `preview` it only shows what would come of it."""
    return Route(
        method="POST",
        path=f"{BASE}/subscription/{{user_id}}/{verb}",
        name=f"{verb}_subscription",
        action=Action.CHANGE,
        summary=summary,
        takes=takes,
        query=subscriptions.SubscriptionQuery,
        headers=("If-Match",),
        answers={200: (subscriptions.SubscriptionAnswer, subscriptions.PreviewAnswer)},
        refuses=(400, 404, 408, 409, 412, 413, 415),
    )


ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=f"{BASE}/subscription/{{user_id}}",
        name="read_subscription",
        action=Action.READ_SUBSCRIPTION,
        summary="The subscription of a user, or the default tier",
        query=subscriptions.SubscriptionQuery,
        answers={200: subscriptions.SubscriptionAnswer},
        refuses=(400, 404),
    ),
    Route(
        method="GET",
        path=f"{BASE}/subscription/{{user_id}}/history",
        name="subscription_history",
        action=Action.READ_SUBSCRIPTION,
        summary="What a subscription was changed to, by whom, newest first",
        query=subscriptions.HistoryQuery,
        answers={200: subscriptions.HistoryAnswer},
        refuses=(400, 404),
    ),
    Route(
        method="GET",
        path=f"{BASE}/subscriptions",
        name="list_subscriptions",
        action=Action.READ_SUBSCRIPTION,
        summary="Subscriptions, newest first, ended ones too",
        query=subscriptions.SubscriptionListQuery,
        answers={200: subscriptions.SubscriptionList},
        refuses=(400, 404),
    ),
    Route(
        method="POST",
        path=f"{BASE}/subscriptions",
        name="create_subscription",
        action=Action.CHANGE,
        summary="Begin a subscription of a user or an organisation",
        takes=subscriptions.SubscriptionRequest,
        headers=("Idempotency-Key",),
        answers={201: subscriptions.SubscriptionAnswer},
        refuses=(400, 408, 409, 413, 415, 422),
    ),
    _action("change", "Another plan, now or when the period ends", subscriptions.PlanChangeRequest),
    _action("cancel", "End now or when the period ends", subscriptions.CancelRequest),
    _action("uncancel", "Go on after all", subscriptions.ActionRequest),
    _action(
        "pause", "No usage, and no base fee from the next period on", subscriptions.ActionRequest
    ),
    _action("resume", "Go on after a pause", subscriptions.ActionRequest),
    _action("reactivate", "Begin again after the end", subscriptions.ActionRequest),
)
