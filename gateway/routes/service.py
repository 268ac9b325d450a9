"""The service itself: its clock in tests, its probes, its document."""

from __future__ import annotations

from gateway.auth.rights import Action
from gateway.probes import Ready
from gateway.route import BASE, Route
from gateway.test_clock import ClockAnswer, ClockRequest

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path=f"{BASE}/test-clock",
        name="advance_clock",
        action=Action.CHANGE,
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
