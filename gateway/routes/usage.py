"""Usage and quotas."""

from __future__ import annotations

from gateway import corrections, messages
from gateway.auth.rights import Action
from gateway.route import BASE, Route

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path=f"{BASE}/usage",
        name="record_usage",
        action=Action.RECORD_USAGE,
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
        action=Action.RECORD_USAGE,
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
        action=Action.READ_USAGE,
        summary="Recorded usage, newest first",
        query=messages.UsageQuery,
        answers={200: messages.UsageList},
        refuses=(400, 404),
    ),
    Route(
        method="POST",
        path=f"{BASE}/usage/{{usage_id}}/corrections",
        name="correct_usage",
        action=Action.CHANGE,
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
        action=Action.RECORD_USAGE,
        summary="Would this quantity be admitted now? Writes nothing",
        takes=messages.CheckRequest,
        answers={200: messages.CheckAnswer},
        refuses=(400, 408, 409, 413, 415),
    ),
    Route(
        method="GET",
        path=f"{BASE}/quota/{{user_id}}",
        besides="check",
        name="read_quota",
        action=Action.READ_USAGE,
        summary="Every entitlement of a user with what is used of it",
        query=messages.AccountQuery,
        answers={200: messages.QuotaAnswer},
        refuses=(400, 404, 409),
    ),
)
