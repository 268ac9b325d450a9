"""``python -m gateway``: the service process."""

from __future__ import annotations

import asyncio
import signal
import sys

import structlog
import uvloop
from joserfc.jwk import KeySet

from gateway.dev_tokens import dev_key
from gateway.serving import serving
from ledger import db, logs, loops, migrate, settings

log = structlog.get_logger()


async def serve(config: settings.Settings, keys: KeySet) -> int:
    stop = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stop.set)
    try:
        connection = await db.connect(config.database_url)
        try:
            missing = await migrate.pending(connection)
            if missing:
                raise migrate.MigrationError(f"{missing[0]} is not applied; run ./run migrate")
            await loops.check_partitions(connection, config.partitions)
        finally:
            await connection.close()
    except (migrate.MigrationError, loops.PartitionsChanged) as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    except db.UNAVAILABLE as error:
        # Warm accounts can be served without Postgres; readiness says that it is missing.
        log.warning("postgres_unavailable", reason=type(error).__name__)
    try:
        async with serving(config, keys) as port:
            log.info("gateway_started", host=config.host, port=port)
            await stop.wait()
    except OSError as error:
        print(f"gateway: PORT: {config.host}:{config.port}: {error.strerror}", file=sys.stderr)
        return 2
    log.info("gateway_stopped")
    return 0


def start() -> int:
    try:
        config = settings.load()
        keys = KeySet([dev_key(config.data_dir)])
    except settings.SettingError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    logs.configure(config.log_level)
    return uvloop.run(serve(config, keys))


if __name__ == "__main__":
    sys.exit(start())
