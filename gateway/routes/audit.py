"""The audit trail."""

from __future__ import annotations

from gateway import audit_messages as audit
from gateway.auth.rights import Action
from gateway.route import BASE, Route

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=f"{BASE}/audit/events",
        name="list_audit_events",
        action=Action.AUDIT,
        summary="All that was done other than usage, and denied access, newest first",
        query=audit.AuditEventQuery,
        answers={200: audit.AuditEventList},
        refuses=(400,),
    ),
    Route(
        method="GET",
        path=f"{BASE}/audit/verify",
        name="verify_audit",
        action=Action.AUDIT,
        summary="Whether the newest part of every hash chain is as it was sealed",
        query=audit.VerifyQuery,
        answers={200: audit.VerifyAnswer},
        refuses=(400, 404),
    ),
)
