"""The only wiring: settings in, a running application out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import msgspec
import structlog
from aiohttp import web
from joserfc.jwk import KeySet
from prometheus_client import CONTENT_TYPE_LATEST

from gateway import messages, metrics, openapi
from gateway.accounts import Accounts
from gateway.admission import Admission
from gateway.auth import Authenticator, Principal
from gateway.dev.tokens import DEV_ISSUER
from gateway.lookback import LookBack
from gateway.probes import Probes
from gateway.problems import CONTENT_TYPE, Kind, Problem
from gateway.quotas import Quotas
from gateway.routes import ROUTES
from gateway.subscriptions import Subscriptions
from gateway.usage import Usage
from gateway.usage_list import UsageLists
from gateway.usage_types import UsageTypes
from ledger import clock, db, durability
from ledger.domain.durability import Verdict
from ledger.durability import Watch
from ledger.entitlements import Loader
from ledger.settings import Settings
from lua.multiplexer import Multiplexer
from lua.recorder import Recorder
from lua.replicated import ReplicatedRecorder
from lua.scripts import Scripts

log = structlog.get_logger()

MAX_BODY = 2 * 1024 * 1024  # a batch of 1000 records of 2 KB
BODY_S = 10  # to send a body; a slower client holds memory, not just a socket
POSTGRES_CONNECTIONS = 8  # cold loads and lists only

Response = web.Response
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Wired(NamedTuple):
    """The application, and what the raw hot path shares with it."""

    app: web.Application
    authenticator: Authenticator
    usage: Usage
    quotas: Quotas


def wire(settings: Settings, keys: KeySet) -> Wired:
    """Everything put together; its servers are reached when first needed."""
    redis = Multiplexer(settings.redis_url)
    # Where calls wait for replicas, on their connection, nothing else must stand behind them.
    calls = Multiplexer(settings.redis_url) if settings.durability_replicas else redis
    scripts = Scripts(redis)
    pool = db.pool(settings.database_url, POSTGRES_CONNECTIONS)
    loader = Loader(pool, scripts, settings.default_tier, settings.partitions)
    enforce = settings.quota_enforcement
    admission = Admission(
        scripts,
        _recorder(settings, calls, scripts),
        loader,
        pool,
        partitions=settings.partitions,
        enforce=enforce,
    )
    must_keep = not settings.is_dev
    look_back = LookBack(loader, admission.acked)
    calls.connected = look_back.connected

    def judged(verdict: Verdict | None) -> None:
        # None: it did not answer, and may be another server when it does.
        admission.close(must_keep and (verdict is None or not verdict.kept))
        metrics.judged(verdict)

    judged(None)
    watch = Watch(redis, durability.wanted(settings), judged)
    accounts = Accounts(pool, readable_names=settings.is_dev)
    usage_types = UsageTypes(pool)
    authenticator = Authenticator(
        keys, DEV_ISSUER, settings.auth_audience, anonymous=settings.is_dev
    )
    usage = Usage(admission, accounts, usage_types)
    quotas = Quotas(admission, accounts, usage_types)
    api = _Api(
        authenticator,
        usage,
        UsageLists(accounts, pool),
        quotas,
        Subscriptions(accounts, pool, settings.default_tier),
        Probes(redis, pool, settings.partitions, watch, must_keep=must_keep),
    )
    app = web.Application(middlewares=[_answer_problems], client_max_size=MAX_BODY)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, getattr(api, route.name), name=route.name)

    async def connections(_: web.Application) -> AsyncIterator[None]:
        await pool
        watching = asyncio.ensure_future(watch.for_ever())
        looking_back = asyncio.ensure_future(look_back.for_ever())
        yield
        watching.cancel()
        looking_back.cancel()
        await calls.close()
        await redis.close()
        try:
            await asyncio.wait_for(pool.close(), 2)
        except TimeoutError:
            pool.terminate()

    app.cleanup_ctx.append(connections)
    return Wired(app, authenticator, usage, quotas)


def _recorder(settings: Settings, redis: Multiplexer, scripts: Scripts) -> Recorder:
    enforce, cap = settings.quota_enforcement, settings.undrained_cap
    if replicas := settings.durability_replicas:
        return ReplicatedRecorder(redis, scripts, enforce=enforce, cap=cap, replicas=replicas)
    return Recorder(redis, scripts, enforce=enforce, cap=cap)


class _Api:
    """HTTP in, HTTP out: one method per route of the table."""

    def __init__(
        self,
        authenticator: Authenticator,
        usage: Usage,
        usage_lists: UsageLists,
        quotas: Quotas,
        subscriptions: Subscriptions,
        probes: Probes,
    ) -> None:
        self._authenticator = authenticator
        self._usage = usage
        self._usage_lists = usage_lists
        self._quotas = quotas
        self._subscriptions = subscriptions
        self._probes = probes
        self._openapi = msgspec.json.encode(openapi.document(_version()))

    async def record_usage(self, request: web.Request) -> Response:
        principal = self._caller(request)
        body, headers = await self._usage.record(
            principal, await _body(request), request.headers.get("Idempotency-Key")
        )
        return Response(body=body, status=201, headers=headers, content_type="application/json")

    async def record_usage_batch(self, request: web.Request) -> Response:
        principal = self._caller(request)
        return _json(
            await self._usage.batch(
                principal, await _body(request), request.headers.get("Idempotency-Key")
            )
        )

    async def list_usage(self, request: web.Request) -> Response:
        principal = self._caller(request)
        query = messages.query(messages.UsageQuery, request.query)
        return _json(await self._usage_lists.page(principal, query))

    async def check_quota(self, request: web.Request) -> Response:
        principal = self._caller(request)
        return _json(await self._quotas.check(principal, await _body(request)))

    async def read_quota(self, request: web.Request) -> Response:
        principal = self._caller(request)
        query = messages.query(messages.AccountQuery, request.query)
        return _json(await self._quotas.read(principal, request.match_info["user_id"], query))

    async def read_subscription(self, request: web.Request) -> Response:
        principal = self._caller(request)
        query = messages.query(messages.SubscriptionQuery, request.query)
        return _json(
            await self._subscriptions.read(principal, request.match_info["user_id"], query)
        )

    async def livez(self, _: web.Request) -> Response:
        return Response(text="ok\n")

    async def readyz(self, _: web.Request) -> Response:
        ready = await self._probes.ready()
        return _json(msgspec.json.encode(ready), 503 if ready.status == "unready" else 200)

    async def metrics(self, _: web.Request) -> Response:
        return Response(body=metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(self, _: web.Request) -> Response:
        return _json(self._openapi)

    def _caller(self, request: web.Request) -> Principal:
        return self._authenticator.principal(
            request.headers.get("Authorization"), request.headers.get("Host")
        )


@web.middleware
async def _answer_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as a problem document, and every answer is timed."""
    began = clock.monotonic()
    try:
        response = await handler(request)
    except Problem as problem:
        response = _problem(problem, request)
    except web.HTTPException as error:
        response = _problem(_of_aiohttp(error), request)
    except Exception:
        log.exception("internal_error", path=request.path, method=request.method)
        response = _problem(Problem(Kind.INTERNAL, "an unexpected error; it was logged"), request)
    route = request.match_info.route.name or "unknown"
    metrics.answered(route, response.status, clock.monotonic() - began)
    return response


def _problem(problem: Problem, request: web.Request) -> Response:
    return Response(
        body=problem.body(request.path),
        status=problem.kind.status,
        headers=problem.headers,
        content_type=CONTENT_TYPE,
    )


def _of_aiohttp(error: web.HTTPException) -> Problem:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = {"Allow": ", ".join(sorted(error.allowed_methods))}
        return Problem(Kind.METHOD_NOT_ALLOWED, "this path has other methods", allowed)
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return Problem(Kind.TOO_LARGE, f"a body has at most {MAX_BODY} bytes")
    if error.status == 404:
        return Problem(Kind.NOT_FOUND, "there is no such path")
    return Problem(Kind.INVALID_REQUEST, "the request cannot be understood")


async def _body(request: web.Request) -> bytes:
    """The JSON body, within its size and time."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(Kind.UNSUPPORTED_MEDIA, "compressed bodies are not accepted")
    if request.content_type != "application/json":
        raise Problem(Kind.UNSUPPORTED_MEDIA, "Content-Type must be application/json")
    if (request.content_length or 0) > MAX_BODY:
        raise Problem(Kind.TOO_LARGE, f"a body has at most {MAX_BODY} bytes")
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise Problem(Kind.TIMEOUT, f"the body took longer than {BODY_S} seconds") from None


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body=body, status=status, content_type="application/json")


def _version() -> str:
    try:
        return version("billing-gateway")
    except PackageNotFoundError:
        return "0.1.0"
