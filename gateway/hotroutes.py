"""What the raw protocol serves: the routes on the hot path, each with the same functions as
behind aiohttp, so that the two ways cannot differ in what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

import structlog

from gateway.admission import settled
from gateway.auth import Authenticator, Denied, Principal
from gateway.head import Head, Target
from gateway.known import Unknown
from gateway.messages import AccountQuery
from gateway.problems import CONTENT_TYPE, Kind, Problem
from gateway.quotas import Quotas
from gateway.usage import Usage
from lua.types import Answer

log = structlog.get_logger()

_NO_HEADERS: dict[str, str] = {}
_PROBLEM = CONTENT_TYPE.encode()
_LINES = {200: b"200 OK", 201: b"201 Created"}


class Reply(NamedTuple):
    """One answer, ready to be written."""

    status: int
    line: bytes  # status and reason
    content_type: bytes
    headers: dict[str, str]
    body: bytes


Send = Callable[[Reply], None]


class HotRoutes:
    """The functions of the hot routes, and how a request and its answer go through them."""

    def __init__(
        self, authenticator: Authenticator, usage: Usage, quotas: Quotas, denied: Denied
    ) -> None:
        self._authenticator = authenticator
        self._usage = usage
        self._quotas = quotas
        self._denied = denied
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, head: Head, body: bytes, send: Send) -> None:
        """Answers a request by `send`, once: at once or later."""
        target, principal = head.target, None
        try:
            header = head.text(b"authorization")
            key = head.text(b"idempotency-key")
            try:
                principal = self._authenticator.principal(
                    header, head.text(b"host") if header is None else None, head.peer
                )
            except Unknown:  # never without a header: the auth service is asked about a token
                asked = self._authenticator.caller(header, None, head.peer)
                self._later(target, asked, body, key, send)
                return
            if target.name == "record_usage":
                try:
                    self._record(target, principal, body, key, send)
                    return
                except Unknown:
                    pass  # the ledger must be asked first, which takes a task
        except Exception as error:
            self._fail(error, principal, target, send)
            return
        self._later(target, principal, body, key, send)

    def _record(
        self, target: Target, principal: Principal, body: bytes, key: str | None, send: Send
    ) -> None:
        """Without a task, which would cost as much as half of the rest."""
        event, places = self._usage.event(principal, body, key)

        def decided(said: Answer | BaseException) -> None:
            try:
                outcome = settled(said)
                if outcome is None:
                    self._later(target, principal, body, key, send)
                    return
                text, headers = self._usage.answer(event, places, outcome)
            except Exception as error:
                self._fail(error, principal, target, send)
                return
            send(_json(201, text, headers))  # outside: what fails after it is no second answer

        self._usage.submit(event, decided)

    def _later(
        self,
        target: Target,
        found: Principal | Awaitable[Principal],
        body: bytes,
        key: str | None,
        send: Send,
    ) -> None:
        """By a task: the ledger, or the auth service about who asks, must be asked first."""

        async def answer() -> None:
            principal = None
            try:
                principal = found if isinstance(found, Principal) else await found
                reply = await self._answer(target, principal, body, key)
            except Exception as error:
                self._fail(error, principal, target, send)
                return
            send(reply)

        task = asyncio.ensure_future(answer())
        self._tasks.add(task)  # the loop itself would let it be collected
        task.add_done_callback(self._tasks.discard)

    async def _answer(
        self, target: Target, principal: Principal, body: bytes, key: str | None
    ) -> Reply:
        match target.name:
            case "record_usage":
                return _json(201, *await self._usage.record(principal, body, key))
            case "record_usage_batch":
                return _json(200, await self._usage.batch(principal, body, key))
            case "check_quota":
                return _json(200, await self._quotas.check(principal, body))
            case "read_quota":
                query = AccountQuery(organization_id=target.organization_id)
                return _json(200, await self._quotas.read(principal, target.user_id, query))
            case name:
                raise AssertionError(f"{name} is not served here")

    def _fail(
        self, error: Exception, principal: Principal | None, target: Target, send: Send
    ) -> None:
        if isinstance(error, Problem):
            send(refusal(error, target.path))
            if error.denied:
                self._denied(principal, target.name, error.kind.status)
            return
        # Answered before it is logged: a log that cannot be written must not cost the answer.
        send(refusal(Problem(Kind.INTERNAL, "an unexpected error; it was logged"), target.path))
        with suppress(Exception):
            log.error("internal_error", path=target.path, exc_info=error)


def _json(status: int, body: bytes, headers: dict[str, str] = _NO_HEADERS) -> Reply:
    return Reply(status, _LINES[status], b"application/json", headers, body)


def refusal(problem: Problem, path: str | None) -> Reply:
    """The reply that a problem is; `path` is what was asked for, when it is known."""
    kind = problem.kind
    line = b"%d %s" % (kind.status, kind.title.encode())
    return Reply(kind.status, line, _PROBLEM, problem.headers, problem.body(path))
