"""Opens the port: the raw protocol in front, aiohttp behind it, one graceful end for both."""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from joserfc.jwk import ECKey

from gateway.app import wire
from gateway.hotpath import NOT_HTTP, HotPath
from gateway.hotroutes import HotRoutes
from gateway.problems import CONTENT_TYPE, Kind, Problem
from ledger.settings import Settings

BACKLOG = 1024
# Kubernetes kills after 30 s; aiohttp's own default would still be waiting.
SHUTDOWN_S = 20
OTHER_FILES = 64  # Redis, Postgres, logs, the listening socket, room to accept and refuse
KEEPALIVE_S = 75


def _open_files() -> int:
    """How many files this process may open, after asking for all it can get."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems have no such limit, or a lower one
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        soft = most
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _open_connections(server: web.Server) -> int:
    return len(server.connections)


class _Behind(RequestHandler):
    """aiohttp's side of a connection. What it cannot read as HTTP it would repeat in its answer
    and in the log; it could be personal or secret."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        problem = Problem(Kind.INTERNAL if status >= 500 else Kind.INVALID_REQUEST, NOT_HTTP)
        answer = web.Response(
            body=problem.body(), status=problem.kind.status, content_type=CONTENT_TYPE
        )
        answer.force_close()
        return answer


@asynccontextmanager
async def serving(
    settings: Settings, dev_key: ECKey | None, listening: socket.socket | None = None
) -> AsyncIterator[int]:
    """Serves until the block is left, then answers what is under way. Gives the port; one of 0 is
    chosen by the system. Opens it unless given a listening socket; raises `OSError` when it
    cannot."""
    wired = wire(settings, dev_key)
    runner = web.AppRunner(
        wired.app,
        handle_signals=False,
        shutdown_timeout=SHUTDOWN_S,
    )
    await runner.setup()
    try:
        assert runner.server is not None
        behind = partial(
            _Behind,
            runner.server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # as AppRunner itself passes it
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_S,
        )
        hot = HotPath(
            HotRoutes(wired.authenticator, wired.usage, wired.quotas, wired.denied),
            behind,
            partial(_open_connections, runner.server),
            min(settings.gateway_connections, _open_files() - OTHER_FILES),
        )
        sweeper = asyncio.ensure_future(hot.sweep())
        try:
            loop = asyncio.get_running_loop()
            if listening is None:
                server = await loop.create_server(
                    hot, settings.host, settings.port, backlog=BACKLOG
                )
            else:
                server = await loop.create_server(hot, sock=listening, backlog=BACKLOG)
            try:
                yield server.sockets[0].getsockname()[1]
            finally:
                server.close()
                with suppress(TimeoutError):
                    await asyncio.wait_for(hot.drain(), SHUTDOWN_S)
        finally:
            sweeper.cancel()
    finally:
        await runner.cleanup()
