"""``python -m ledger``: the sidecar process."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys

import structlog
import uvloop

from ledger import clock, db, durability, logs, loops, migrate, settings, stripe_mode
from ledger.audit import heads
from lua.cluster import Cluster
from lua.multiplexer import Multiplexer

log = structlog.get_logger()


async def main(config: settings.Settings) -> int:
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
        # Of a million totals that were invoiced a change of it takes longer than a statement may.
        connection = await db.connect(config.database_url, patient=True)
        try:
            await stripe_mode.set_mode(connection, config.stripe_mode, clock.now())
        finally:
            await connection.close()
    except (migrate.MigrationError, loops.PartitionsChanged) as error:
        print(f"ledger: {error}", file=sys.stderr)
        return 2
    except db.UNAVAILABLE as error:
        print(f"ledger: Postgres does not answer ({type(error).__name__})", file=sys.stderr)
        return 1
    # What is there now stays, and a batch holds thousands of things that are no garbage yet:
    # looking through them again and again would take a seventh of the drain's time.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    log.info("ledger_started", partitions=config.partitions)
    redis = Cluster(config.redis_url, Multiplexer)
    watching = asyncio.ensure_future(durability.Watch(redis, durability.wanted(config)).for_ever())
    # Never a reason not to drain: what such a server holds is safer in Postgres.
    await loops.run(config, stop)
    watching.cancel()
    await redis.close()
    log.info("ledger_stopped")
    return 0


def start() -> int:
    try:
        config = settings.load()
        heads.signing_key(config)
    except settings.SettingError as error:
        print(f"ledger: {error}", file=sys.stderr)
        return 2
    logs.configure(config.log_level)
    return uvloop.run(main(config))


if __name__ == "__main__":
    sys.exit(start())
