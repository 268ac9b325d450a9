"""The only wiring: settings in, a running application out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import NamedTuple

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware
from joserfc.jwk import ECKey

from gateway import metrics
from gateway.accounts import Accounts
from gateway.admission import Admission
from gateway.agreements import Agreements
from gateway.audit import Audit
from gateway.audit_handlers import AuditHandlers
from gateway.auth import Authenticator, Denied
from gateway.auth.wiring import Authentication
from gateway.backlog import Backlog
from gateway.catalogue import Catalogue
from gateway.catalogue_handlers import CatalogueHandlers
from gateway.corrections import UsageCorrections
from gateway.denials import Denials
from gateway.handlers import Handlers
from gateway.http import CALLER, MAX_BODY
from gateway.invoice_handlers import InvoiceHandlers
from gateway.invoices import Invoices
from gateway.lane import Lanes
from gateway.lookback import LookBack
from gateway.metadata import MetadataGuard
from gateway.organization_handlers import OrganizationHandlers
from gateway.organizations import Organizations
from gateway.plan_migrations import PlanMigrations
from gateway.probes import Probes
from gateway.problems import CONTENT_TYPE, Kind, Problem
from gateway.quotas import Quotas
from gateway.route import Route
from gateway.routes import ROUTES
from gateway.subscription_changes import SubscriptionChanges
from gateway.subscription_handlers import SubscriptionHandlers
from gateway.subscriptions import Subscriptions
from gateway.test_clock import TestClock
from gateway.test_clock_handlers import ClockHandlers
from gateway.usage import Usage
from gateway.usage_list import UsageLists
from gateway.usage_types import UsageTypes
from gateway.webhook_handlers import WebhookHandlers
from gateway.webhooks import StripeWebhooks
from ledger import clock, db, durability, service_time
from ledger.corrections import Corrections
from ledger.durability import Look, Watch
from ledger.entitlements import Loader
from ledger.settings import Settings
from ledger.subscriptions import Subscriptions as Lifecycle
from ledger.supersede import Superseder
from lua.cluster import Cluster
from lua.keys import stream
from lua.multiplexer import Multiplexer
from lua.recorder import Recorder
from lua.replicated import ReplicatedRecorder
from lua.scripts import Scripts

log = structlog.get_logger()

POSTGRES_CONNECTIONS = 8  # what usage needs of Postgres: cold loads, lost keys
# Lists and changes: what they wait for must not keep a cold account from being loaded.
DESK_CONNECTIONS = 4

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Wired(NamedTuple):
    """The application, and what the raw hot path shares with it."""

    app: web.Application
    authenticator: Authenticator
    usage: Usage
    quotas: Quotas
    denied: Denied


def wire(settings: Settings, dev_key: ECKey | None) -> Wired:
    """Everything put together; its servers are reached when first needed. The key of dev tokens
    is for dev only."""

    def connect(url: str) -> Multiplexer:
        server = Multiplexer(url)
        server.connected = lambda: look_back.connected()
        return server

    redis = Cluster(settings.redis_url, connect)
    scripts = Scripts(redis)
    pool = db.pool(settings.database_url, POSTGRES_CONNECTIONS)
    desk = db.pool(settings.database_url, DESK_CONNECTIONS)
    apart: list[Cluster[Multiplexer]] = []

    def recorder() -> Recorder:
        enforce, cap = settings.quota_enforcement, settings.undrained_cap
        if not (replicas := settings.durability_replicas):
            return Recorder(redis, scripts, enforce=enforce, cap=cap)
        # Calls wait for replicas on their connection, and nothing else must stand behind them.
        apart.append(Cluster(settings.redis_url, connect))
        return ReplicatedRecorder(apart[-1], scripts, enforce=enforce, cap=cap, replicas=replicas)

    lanes = Lanes(recorder, settings.partitions)
    redis.when_spread(lanes.spread)
    loader = Loader(pool, scripts, settings.default_tier, settings.partitions)
    admission = Admission(
        scripts,
        lanes,
        loader,
        pool,
        partitions=settings.partitions,
        enforce=settings.quota_enforcement,
    )
    must_keep = not settings.is_dev
    look_back = LookBack(loader, lanes.acked)

    def judged(look: Look | None) -> None:
        def closed(partition: int) -> bool:
            server = redis.name_of(stream(partition))
            verdict = look.of.get(server) if look and server else None
            # None: it did not answer, and may be another server when it does.
            return verdict is None or not verdict.kept

        lanes.close(lambda partition: must_keep and closed(partition))
        metrics.judged(look.verdict if look else None)

    judged(None)
    watch = Watch(redis, durability.wanted(settings), judged)
    accounts = Accounts(pool, readable_names=settings.is_dev)
    usage_types = UsageTypes(pool)
    authentication = Authentication(settings.auth, dev_key if settings.is_dev else None)
    authenticator = authentication.authenticator
    agreements = Agreements(pool)
    metadata = MetadataGuard(settings.metadata_keys, agreements)
    denials = Denials(desk)
    usage = Usage(admission, accounts, usage_types, metadata, denials.note)
    quotas = Quotas(admission, accounts, usage_types)
    superseder = Superseder(scripts, settings.default_tier, settings.partitions)
    backlog = Backlog(settings.undrained_cap)

    async def now() -> datetime:
        return await service_time.now(desk) if settings.test_clock else clock.now()

    subscriptions = Subscriptions(accounts, desk, settings.default_tier, now)
    handlers = (
        Handlers(
            usage,
            UsageLists(accounts, desk),
            UsageCorrections(Corrections(scripts, settings.undrained_cap), desk, now),
            quotas,
            Probes(redis, pool, settings.partitions, watch, backlog, must_keep=must_keep),
        ),
        ClockHandlers(TestClock(settings)),
        WebhookHandlers(StripeWebhooks(desk, settings.stripe_webhook_secrets)),
        CatalogueHandlers(
            Catalogue(desk, usage_types, settings.default_tier),
            PlanMigrations(desk, now),
        ),
        AuditHandlers(Audit(accounts, desk)),
        OrganizationHandlers(Organizations(accounts, agreements, desk, now)),
        InvoiceHandlers(Invoices(accounts, desk, subscriptions, now)),
        SubscriptionHandlers(
            subscriptions,
            SubscriptionChanges(accounts, Lifecycle(desk, superseder, settings.invoice_grace), now),
        ),
    )
    app = web.Application(middlewares=[_answering(denials.note)], client_max_size=MAX_BODY)
    for route in ROUTES:
        if route.test_only and not settings.test_clock:
            continue
        [handler] = [getattr(one, route.name) for one in handlers if hasattr(one, route.name)]
        app.router.add_route(
            route.method, route.pattern, _guarded(route, handler, authenticator), name=route.name
        )

    async def connections(_: web.Application) -> AsyncIterator[None]:
        await pool
        await desk
        await redis.look_round()  # before the first calls: a cluster takes others
        watching = asyncio.ensure_future(watch.for_ever())
        looking_back = asyncio.ensure_future(look_back.for_ever())
        noting = asyncio.ensure_future(denials.for_ever())
        async with authentication.running():
            yield
        watching.cancel()
        looking_back.cancel()
        noting.cancel()
        await denials.close()
        for servers in (redis, *apart):
            await servers.close()
        for connected in (desk, pool):
            try:
                await asyncio.wait_for(connected.close(), 2)
            except TimeoutError:
                connected.terminate()

    app.cleanup_ctx.append(connections)
    return Wired(app, authenticator, usage, quotas, denials.note)


def _guarded(route: Route, handler: Handler, authenticator: Authenticator) -> Handler:
    """The handler, reached by those only who may do what the route is for."""
    if (action := route.action) is None:
        assert route.public, f"{route.name} says neither what it does nor that it is public"
        return handler

    async def guarded(request: web.Request) -> web.StreamResponse:
        headers = request.headers
        principal = await authenticator.caller(
            headers.get("Authorization"), headers.get("Host"), request.remote
        )
        request[CALLER] = principal  # before it may be denied: the audit trail names who was
        principal.reach(action)
        return await handler(request)

    return guarded


def _answering(denied: Denied) -> Middleware:
    """Every error leaves as a problem document, every answer is timed, every denial is noted."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        began, problem = clock.monotonic(), None
        response: web.StreamResponse
        try:
            if "\0" in request.path:  # Postgres refuses to look for it
                raise Problem(Kind.NOT_FOUND, "there is no such path")
            response = await handler(request)
        except Problem as error:
            problem = error
        except web.HTTPException as error:
            problem = _of_aiohttp(error)
        except Exception:
            log.exception("internal_error", path=request.path, method=request.method)
            problem = Problem(Kind.INTERNAL, "an unexpected error; it was logged")
        route = request.match_info.route.name or "unknown"
        if problem is not None:
            response = _problem(problem, request)
            if problem.denied:
                denied(request.get(CALLER), route, response.status)
        metrics.answered(route, response.status, clock.monotonic() - began)
        return response

    return answer


def _problem(problem: Problem, request: web.Request) -> web.Response:
    return web.Response(
        body=problem.body(request.path),
        status=problem.kind.status,
        headers=problem.headers,
        content_type=CONTENT_TYPE,
    )


def _of_aiohttp(error: web.HTTPException) -> Problem:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return Problem(Kind.METHOD_NOT_ALLOWED, f"this path has {allowed}", {"Allow": allowed})
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return Problem(Kind.TOO_LARGE, f"a body has at most {MAX_BODY} bytes")
    if error.status == 404:
        return Problem(Kind.NOT_FOUND, "there is no such path; /openapi.json lists all")
    return Problem(Kind.INVALID_REQUEST, "the request cannot be understood")
