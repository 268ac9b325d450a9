"""``python -m gateway``: the service. With GATEWAY_WORKERS above 1 it is the parent of that many
processes, each ``python -m gateway SLOT SOCKET READY`` (see `gateway.workers`)."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence

import structlog
import uvloop

from gateway.children import StartError
from gateway.dev.tokens import dev_key
from ledger import db, durability, logs, loops, migrate, settings, store

log = structlog.get_logger()


async def parent(config: settings.Settings) -> int:
    """Checks the database, then serves: alone, or through workers."""
    stop = _stop_signals()
    try:
        connection = await db.connect(config.database_url)
        try:
            missing = await migrate.pending(connection)
            if missing:
                raise migrate.MigrationError(f"{missing[0]} is not applied; run ./run migrate")
            await loops.check_partitions(connection, config.partitions)
            if await store.newest_plan(connection, config.default_tier) is None:
                return _fail("BILLING_TIER_DEFAULT: names a plan that is not in the catalogue", 2)
        finally:
            await connection.close()
    except (migrate.MigrationError, loops.PartitionsChanged) as error:
        return _fail(str(error), 2)
    except db.UNAVAILABLE as error:
        # Warm accounts can be served without Postgres; readiness says that it is missing.
        log.warning("postgres_unavailable", reason=type(error).__name__)
    if (line := await durability.refused_at_start(config)) is not None:
        return _fail(line, 2)
    try:
        if config.gateway_workers == 1:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # there is no second one to take over
            await _serve(config, None, None, stop)
        else:
            from gateway import workers

            await workers.run(config, os.environ, stop)
    except StartError as error:
        return _fail(str(error), error.exit_code)
    except OSError as error:
        return _fail(f"PORT: {config.host}:{config.port}: {error.strerror}", 2)
    log.info("gateway_stopped")
    return 0


async def worker(config: settings.Settings, listening: int, ready: int) -> int:
    """One of several processes, on a socket of its parent's."""
    stop = _stop_signals()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it means the parent
    with socket.socket(fileno=listening) as opened:
        await _serve(config, opened, ready, stop)
    return 0


async def _serve(
    config: settings.Settings,
    listening: socket.socket | None,
    ready: int | None,
    stop: asyncio.Event,
) -> None:
    # Imported here: a worker names its metrics before any is made.
    from gateway.serving import serving

    key = dev_key(config.data_dir) if config.is_dev else None
    async with serving(config, key, listening) as port:
        # What is there now stays; looking through it for garbage again and again would take a
        # tenth of the time, and few requests leave any behind.
        gc.freeze()
        gc.set_threshold(20_000, 20, 100)
        if ready is None:
            log.info("gateway_started", host=config.host, port=port)
        else:
            os.write(ready, b"1")
            os.close(ready)
        await stop.wait()


def _stop_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stop.set)
    return stop


def _fail(line: str, exit_code: int) -> int:
    print(f"gateway: {line}", file=sys.stderr)
    return exit_code


def main(words: Sequence[str]) -> int:
    try:
        config = settings.load_gateway()
        if config.is_dev:
            dev_key(config.data_dir)
    except settings.SettingError as error:
        return _fail(str(error), 2)
    logs.configure(config.log_level)
    if not words:
        return uvloop.run(parent(config))
    identity, listening, ready = words
    from prometheus_client import values

    values.ValueClass = values.MultiProcessValue(lambda: identity)  # type: ignore[no-untyped-call]
    return uvloop.run(worker(config, int(listening), int(ready)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
