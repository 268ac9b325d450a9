"""Opens the port: the raw protocol in front, aiohttp behind it, one graceful end for both."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import web
from joserfc.jwk import ECKey, KeySet

from gateway.app import wire
from gateway.hotpath import HotPath
from ledger.settings import Settings

BACKLOG = 1024
# Kubernetes kills after 30 s; aiohttp's own default would still be waiting.
SHUTDOWN_S = 20
KEEPALIVE_S = 75


@asynccontextmanager
async def serving(
    settings: Settings, key: ECKey, listening: socket.socket | None = None
) -> AsyncIterator[int]:
    """Serves until the block is left, then answers what is under way. Gives the port; one of 0 is
    chosen by the system. Opens it unless given a listening socket; raises `OSError` when it
    cannot."""
    wired = wire(settings, KeySet([key]))
    runner = web.AppRunner(
        wired.app,
        access_log=None,
        handle_signals=False,
        auto_decompress=False,
        shutdown_timeout=SHUTDOWN_S,
        keepalive_timeout=KEEPALIVE_S,
    )
    await runner.setup()
    try:
        assert runner.server is not None
        hot = HotPath(wired.authenticator, wired.usage, runner.server)
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
