"""A small Stripe on a real socket, that fails when it is told to.

Every request is held against Stripe's OpenAPI document and refused by it as Stripe would; every
answer is too, and a wrong one of ours is an error of the test. So is what should not have left us.
"""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web

from tests.stripe_fake import broken, forms, scan
from tests.stripe_fake.books import Books, Problem
from tests.stripe_fake.clock import Clock
from tests.stripe_fake.faults import Fault
from tests.stripe_fake.idempotency import KEPT, Answer, KeyInUse, KeyMismatch, Keys
from tests.stripe_fake.meters import Meters
from tests.stripe_fake.openapi import Spec
from tests.stripe_fake.webhooks import Webhooks

API_KEY = "sk_test_of_the_fake"
RETRY_AFTER_S = 7
UNDER_WAY_AT_MOST = timedelta(minutes=1)


@dataclass
class Seen:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    text: str
    params: dict[str, Any]


class FakeStripe:
    """Each request meets the next of `faults`; None, or none left: what `choose` says."""

    def __init__(self, spec: Spec, clock: Clock, secrets: Sequence[str] = ("whsec_1",)) -> None:
        self.clock = clock
        self.webhooks = Webhooks(clock, spec.version, secrets)
        self.books = Books(clock, self.webhooks.happened)
        self.meters = Meters(clock, self.books)
        self.faults: list[Fault | None] = []
        self.choose: Callable[[], Fault | None] = lambda: None
        self.seen: list[Seen] = []
        self.wrong: list[str] = []
        self.leaks: list[str] = []  # what arrived and must not leave us
        self._spec = spec
        self._keys = Keys(clock)
        self._late: dict[str, tuple[str, dict[str, Any], datetime]] = {}
        self._closing = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        # Like Stripe's, a request is carried out when nobody waits for its answer any more.
        self._runner = web.AppRunner(app, handler_cancellation=False)

    @property
    def url(self) -> str:
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()

    async def close(self) -> None:
        self._closing.set()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        method, path = request.method.lower(), request.path
        self._carry_out_late(UNDER_WAY_AT_MOST)
        text = await request.text() if method == "post" else request.rel_url.raw_query_string
        params = forms.parse(text)
        headers = dict(request.headers)
        self.seen.append(Seen(method, path, headers, text, params))
        self.leaks += scan.leaks(path, headers, text, params)
        refusal = self._refusal(request, method, path, params)
        if refusal is not None:
            return _respond(refusal)
        fault = self.faults.pop(0) if self.faults else self.choose()
        if fault is Fault.LOSE_REQUEST:
            return broken.reset(request)
        if fault is Fault.TIME_OUT_BEFORE:
            return await self._hold()
        if fault in _TURNED_AWAY:
            return _TURNED_AWAY[fault]()
        if path == "/v1/billing/meter_events" and not await self.meters.alone(params):
            return _respond(_problem(429, "lock_timeout"))
        if method == "post":
            return await self._once(request, path, params, fault)
        if fault in (Fault.FAIL_BEFORE, Fault.FAIL_AFTER):
            return _respond(_problem(500, None, "api_error"))
        if fault is Fault.LATE:
            return await self._hold()
        return await self._told(request, self._done(method, path, params), fault)

    async def _once(
        self, request: web.Request, path: str, params: dict[str, Any], fault: Fault | None
    ) -> web.StreamResponse:
        """A POST under its idempotency key."""
        key = request.headers["Idempotency-Key"]
        try:
            kept = self._keys.begin(key, (path, params))
        except KeyMismatch:
            return _respond(_problem(400, None, "idempotency_error"))
        except KeyInUse:
            self._carry_out_late(timedelta(0))
            return _respond(_problem(409, "idempotency_key_in_use"))
        if kept is not None:
            return await self._told(request, kept, fault, {"Idempotent-Replayed": "true"})
        if fault is Fault.LATE:
            self._late[key] = path, params, self.clock.now()
            return await self._hold()
        failure = _problem(500, None, "api_error")
        answer = failure if fault is Fault.FAIL_BEFORE else self._done("post", path, params)
        if fault is Fault.FAIL_AFTER:
            answer = failure
        self._keys.end(key, answer)
        return await self._told(request, answer, fault)

    def _carry_out_late(self, after: timedelta) -> None:
        """Does what has been under way for so long."""
        for key, (path, params, since) in list(self._late.items()):
            if self.clock.now() - since >= after:
                del self._late[key]
                with self.books.at(self.clock.now() if not after else since + after):
                    self._keys.end(key, self._done("post", path, params))

    def _done(self, method: str, path: str, params: dict[str, Any]) -> Answer:
        """The effect, and what is answered."""
        try:
            answer = Answer(200, copy.deepcopy(self._effect(method, path, params)))
        except Problem as problem:
            answer = _problem(problem.status, problem.code or None)
        self.wrong += self._spec.answer_problems(method, path, answer.body, answer.status)
        return answer

    def _effect(self, method: str, path: str, params: dict[str, Any]) -> dict[str, Any]:
        parts = path.removeprefix("/v1/").split("/")
        books = self.books
        if parts[0] == "events":
            return books.listed("event", params, list(reversed(self.webhooks.events)))
        if parts[0] == "billing":
            return self._metered(parts[1:], params)
        if method == "get":
            kind = _KINDS[parts[0]]
            return books.get(kind, parts[1]) if len(parts) == 2 else books.listed(kind, params)
        if len(parts) == 3:
            act = {"finalize": books.finalize, "void": books.void, "pay": books.pay}[parts[2]]
            return act(parts[1], params)
        make = {
            "customer": books.customer,
            "invoice": books.invoice,
            "invoiceitem": books.item,
            "credit_note": books.credit_note,
        }
        return make[_KINDS[parts[0]]](params)

    def _metered(self, parts: list[str], params: dict[str, Any]) -> dict[str, Any]:
        if parts == ["meter_events"]:
            return self.meters.event(params)
        return self.meters.summaries(parts[1], params) if parts[1:] else self.meters.listed(params)

    async def _told(
        self,
        request: web.Request,
        answer: Answer,
        fault: Fault | None,
        headers: dict[str, str] | None = None,
    ) -> web.StreamResponse:
        if fault is Fault.FORGET and request.method == "POST":  # a question has no key
            self.clock.advance(KEPT)
        if fault in (Fault.LOSE_ANSWER, Fault.FORGET):
            return broken.reset(request)
        if fault is Fault.TIME_OUT_AFTER:
            return await self._hold()
        if fault in (Fault.GARBLE, Fault.PORTAL):
            return broken.page(502 if fault is Fault.GARBLE else 200)
        if fault is Fault.CUT:
            return await broken.cut(request, answer)
        if fault is Fault.TRICKLE:
            return await broken.trickle(request, answer, self._closing)
        return _respond(answer, headers)

    def _refusal(
        self, request: web.Request, method: str, path: str, params: dict[str, Any]
    ) -> Answer | None:
        """What is refused before anything begins, and so is kept under no key."""
        if request.headers.get("Authorization") != f"Bearer {API_KEY}":
            return _problem(401, "api_key_invalid")
        problems = self._spec.request_problems(method, path, params)
        if request.headers.get("Stripe-Version") != self._spec.version:
            problems.append("another version of the API than the document's")
        key = request.headers.get("Idempotency-Key", "")
        if method == "post" and not re.fullmatch(r"[!-~]{1,255}", key):
            problems.append("no idempotency key")
        self.wrong += problems
        return _problem(400, "parameter_unknown") if problems else None

    async def _hold(self) -> web.Response:
        await self._closing.wait()
        return web.Response()


_KINDS = {
    "customers": "customer",
    "invoices": "invoice",
    "invoiceitems": "invoiceitem",
    "credit_notes": "credit_note",
}


# The one refusal that may come without a code of its own.
_DUPLICATE = "An event already exists with identifier"


def _problem(status: int, code: str | None, kind: str = "invalid_request_error") -> Answer:
    # Like Stripe's, the message repeats what was sent: nobody may log it.
    nameless = code is None and kind == "invalid_request_error"
    words = _DUPLICATE if nameless else "No such thing"
    error = {"type": kind, "message": f"{words}: 'SENT-BY-CALLER'"}
    return Answer(status, {"error": error if code is None else {**error, "code": code}})


def _respond(answer: Answer, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(answer.body, status=answer.status, headers=headers)


# Before anything began, and under no key.
_TURNED_AWAY: dict[Fault | None, Callable[[], web.Response]] = {
    Fault.RATE_LIMIT: lambda: _respond(
        _problem(429, "rate_limit"), {"Retry-After": str(RETRY_AFTER_S)}
    ),
    Fault.LOCKED: lambda: _respond(_problem(429, "lock_timeout")),
    Fault.AWAY: lambda: _respond(_problem(503, "api_error", "api_error")),
    Fault.EDGE: lambda: broken.page(502),
}
