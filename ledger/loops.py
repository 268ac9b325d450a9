"""Runs the ledger's work for ever, through outages of Redis and Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from itertools import takewhile
from typing import Any

import structlog

from ledger import clock, db, reload, service_time, store
from ledger.audit import work as audit_work
from ledger.corrections import Corrections
from ledger.cycle import Cycle
from ledger.drain import Drain
from ledger.plan_migrations import PlanMigrations
from ledger.reconcile import Reconciler
from ledger.settings import Secret, Settings
from ledger.stripe_calls import owe
from ledger.supersede import Superseder
from lua.cluster import Cluster
from lua.connection import RedisConnection, RedisUnavailable
from lua.scripts import Scripts

log = structlog.get_logger()

# One piece of work: how long to rest after it.
Once = Callable[[], Awaitable[float]]
Redis = Cluster[RedisConnection]
Begin = Callable[[Settings, db.Connection, Redis], Awaitable[Once]]

IDLE_S = 0.1  # how stale a read of the ledger may be when nothing is wrong
SECOND_IDLE_S = 1.0  # how soon a second drain joins the first, which suffices without a backlog
FROZEN_LOOK_S = 0.5  # between looks for another worker that holds a partition and hangs
COMPARE_S = 60.0  # between looks whether it is time to compare with Stripe
RECONCILE_S = 2.0  # between looks for a partition that is due
CYCLE_S = 2.0  # between looks for periods that are over and plans to be migrated
SUPERSEDE_S = 2.0  # between looks for changes whose sender died
METERING_S = 60.0  # between looks for usage that meters are to count
STRIPE_S = 2.0  # between looks for invoices that are to be delivered, and for what became of them
# Each waits for Stripe most of the time. One payer's call that gets no answer must not hold up all.
STRIPE_WORKERS = 4
CUT_S = 2.0  # for a call under way when the ledger stops; cut, it is tried again
# After an outage: easy on a sick server, and back well within two seconds of a healthy one.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 1.0


class PartitionsChanged(Exception):
    """PARTITIONS differs from what this database was made with; accounts would change streams."""


async def check_partitions(connection: db.Executor, partitions: int, *, fix: bool = True) -> None:
    """Fixes the number of partitions at first start; raises `PartitionsChanged` ever after."""
    existing = await store.count_cursors(connection)
    if existing == 0 and fix:
        existing = await store.ensure_cursors(connection, partitions)
    if existing not in (0, partitions):
        raise PartitionsChanged(
            f"PARTITIONS: is {partitions}, but this database was made with {existing}; "
            f"set PARTITIONS={existing}"
        )


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Drains and reconciles all partitions, finishes what others left undone, and invoices, until
    `stop`."""
    async with asyncio.TaskGroup() as group:
        # One reads and counts while the other waits for Postgres.
        for order, idle_s in ((1, IDLE_S), (-1, SECOND_IDLE_S)):
            group.create_task(_for_ever("drain", settings, stop, partial(_drain, order, idle_s)))
        group.create_task(_for_ever("reconcile", settings, stop, partial(_reconcile, stop)))
        group.create_task(_for_ever("supersede", settings, stop, _supersede))
        group.create_task(_for_ever("cycle", settings, stop, _cycle))
        group.create_task(_for_ever("seal", settings, stop, audit_work.seal))
        if settings.audit_service_url is not None:
            deliver = _for_ever("audit_delivery", settings, stop, audit_work.deliver)
            group.create_task(_cut([deliver], stop))
        if settings.stripe_api_key is None:
            log.warning("stripe_delivery_off", reason="STRIPE_API_KEY is not set; invoices wait")
        else:
            group.create_task(_stripe(settings.stripe_api_key, settings, stop))


async def _drain(
    order: int, idle_s: float, settings: Settings, connection: db.Connection, redis: Redis
) -> Once:
    """Drains from the first partition on, or from the last (-1): two seldom meet."""
    partitions = range(settings.partitions)[::order]
    drain = Drain(connection, Scripts(redis), settings.stream_retention_seconds)
    looked_at = clock.monotonic()

    async def once() -> float:
        nonlocal looked_at
        entries = await drain.run_once(partitions)
        if clock.monotonic() - looked_at > FROZEN_LOOK_S:
            looked_at = clock.monotonic()
            if ended := await store.end_frozen(connection, db.FROZEN_S):
                log.warning("frozen_sessions_ended", sessions=ended)
        return 0 if entries else idle_s

    return once


async def _reconcile(
    stop: asyncio.Event, settings: Settings, connection: db.Connection, redis: Redis
) -> Once:
    reconciler = Reconciler(connection, redis, Scripts(redis), repair=True)

    async def once() -> float:
        # A look takes seconds where much is to be compared, and stopping must not wait for all.
        partitions = takewhile(lambda _: not stop.is_set(), range(settings.partitions))
        await reconciler.run_once(partitions)
        return RECONCILE_S

    return once


async def _supersede(settings: Settings, connection: db.Connection, redis: Redis) -> Once:
    scripts = Scripts(redis)
    superseder = Superseder(scripts, settings.default_tier, settings.partitions)
    corrections = Corrections(scripts, settings.undrained_cap)

    async def once() -> float:
        await superseder.run_once(connection)
        await corrections.run_once(connection, await service_time.now(connection))
        await reload.run_once(connection, redis, scripts, settings.partitions)
        return SUPERSEDE_S

    return once


async def _cycle(settings: Settings, connection: db.Connection, redis: Redis) -> Once:
    superseder = Superseder(Scripts(redis), settings.default_tier, settings.partitions)
    cycle = Cycle(
        connection,
        superseder,
        grace=settings.invoice_grace,
        park_above=settings.invoice_park_above,
    )
    migrations = PlanMigrations(connection, superseder, settings.invoice_grace)

    async def once() -> float:
        now = await service_time.now(connection)
        steps = await cycle.run_once(now) + await migrations.run_once(now)
        return 0 if steps else CYCLE_S

    return once


async def _stripe(key: Secret, settings: Settings, stop: asyncio.Event) -> None:
    """Delivers invoices or usage to Stripe and asks what became of them; whatever Stripe does, the
    ledger's other work goes on and ends."""
    # Not at the top: the library costs 10 MiB, and few ledgers have a key.
    from ledger.metering import Metering
    from ledger.payments import Payments
    from ledger.reconcile.stripe_daily import Daily
    from ledger.stripe_api import StripeApi
    from ledger.stripe_delivery import Delivery
    from ledger.stripe_reading import StripeReading

    async def deliver(_settings: Settings, connection: db.Connection, _redis: Redis) -> Once:
        delivery = Delivery(connection, api)
        looked_at = clock.monotonic() - STRIPE_S

        async def once() -> float:
            nonlocal looked_at
            if clock.monotonic() - looked_at >= STRIPE_S:
                # Not before each call: that would read again all that waits to be sent.
                while await owe(connection, clock.now()):
                    pass
                looked_at = clock.monotonic()
            return 0 if await delivery.run_once() else STRIPE_S

        return once

    async def look(settings: Settings, connection: db.Connection, redis: Redis) -> Once:
        superseder = Superseder(Scripts(redis), settings.default_tier, settings.partitions)
        payments = Payments(connection, api, superseder, settings.invoice_grace)

        async def once() -> float:
            now = await service_time.now(connection)
            return 0 if await payments.run_once(now, clock.now()) else STRIPE_S

        return once

    async def compare(settings: Settings, connection: db.Connection, _redis: Redis) -> Once:
        daily = Daily(settings.database_url, connection, StripeReading(api))

        async def once() -> float:
            await daily.run_once()
            return COMPARE_S

        return once

    async def meter(_settings: Settings, connection: db.Connection, _redis: Redis) -> Once:
        metering = Metering(connection, api)

        async def once() -> float:
            await metering.run_once()
            return METERING_S

        return once

    log.info("stripe_delivery_on", mode=settings.stripe_mode)
    api = StripeApi(key.reveal(), settings.stripe_api_base)
    work = [("stripe", deliver)] * STRIPE_WORKERS + [
        ("payments", look),
        ("stripe_reconcile", compare),
    ]
    if settings.stripe_mode == "meters":
        work.append(("metering", meter))
    try:
        await _cut([_for_ever(name, settings, stop, one) for name, one in work], stop)
    finally:
        await api.close()


async def _cut(works: Iterable[Coroutine[Any, Any, None]], stop: asyncio.Event) -> None:
    """Does these until `stop`, and does not wait for the other side of a call after that."""
    workers = [asyncio.ensure_future(one) for one in works]
    try:
        await stop.wait()
        await asyncio.wait(workers, timeout=CUT_S)
    finally:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _for_ever(name: str, settings: Settings, stop: asyncio.Event, begin: Begin) -> None:
    """Does one kind of work over connections of its own. Outages are waited out: nothing is lost
    meanwhile, entries stay in the stream."""
    redis = Cluster(settings.redis_url, RedisConnection)
    pause = FIRST_PAUSE_S
    try:
        while not stop.is_set():
            try:
                connection = await db.connect(settings.database_url)
                try:
                    once = await begin(settings, connection, redis)
                    while not stop.is_set():
                        rest = await once()
                        pause = FIRST_PAUSE_S
                        if rest:
                            await _rest(stop, rest)
                finally:
                    await connection.close(timeout=1)
            except (*db.UNAVAILABLE, db.PostgresError, RedisUnavailable) as error:
                reason = str(error).partition("\n")[0]  # what follows may quote a row
                log.warning(f"{name}_waiting", reason=f"{type(error).__name__}: {reason}")
            except Exception:
                # Whatever it is, nothing is lost by trying again; ending would help nobody.
                log.exception(f"{name}_failed")
            else:
                continue
            await _rest(stop, pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
    finally:
        await redis.close()


async def _rest(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
