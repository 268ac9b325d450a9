"""``./run doctor``: what is wrong with a set-up, in plain words, each with its way out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Literal

import msgspec

from ledger import billing_state, db, durability, loops, migrate, settings, store
from ledger.audit import state as audit_state
from ledger.domain.durability import judge
from ledger.domain.usage import ms_of
from ledger.store.stripe_state import StripeState
from lua import keys
from lua.cluster import Cluster
from lua.connection import RedisUnavailable
from lua.multiplexer import Multiplexer
from lua.standing import floor, standing

Level = Literal["ok", "warning", "problem"]

SKEW_WARNING_MS = 2_000  # periods follow Redis time, rows Postgres time: apart, they disagree
SKEW_PROBLEM_MS = 60_000
# Redis 7.0: scripts that must run when memory is full say so in a way older ones do not know.
OLDEST_REDIS, OLDEST_POSTGRES = (7, 0), 15


class Finding(msgspec.Struct, frozen=True):
    """One line of the report."""

    level: Level
    line: str


async def doctor(config: settings.Settings) -> int:
    """Prints the findings. 0: nothing wrong, 1: a problem."""
    worst = 0
    async for finding in examine(config):
        print(f"{finding.level:8} {finding.line}")
        worst = max(worst, finding.level == "problem")
    return worst


async def examine(config: settings.Settings) -> AsyncIterator[Finding]:
    """Everything that is checked, in the order in which one mends it."""
    redis = Cluster(config.redis_url, Multiplexer)
    try:
        times: list[int] = []
        servers = await redis.primaries()
        for name, server in servers.items():
            name = name if len(servers) == 1 else f"redis {name}"
            try:
                times.append(await _redis_time(server))
                async for finding in _redis(name, server, config):
                    yield finding
            except RedisUnavailable as error:
                cause = error.__cause__ or error
                yield Finding(
                    "problem", f"{name}: {error} ({cause}); is REDIS_URL right and Redis running?"
                )
        async for finding in _postgres(config, redis, times):
            yield finding
    finally:
        await redis.close()


async def _redis(
    name: str, redis: Multiplexer, config: settings.Settings
) -> AsyncIterator[Finding]:
    info = await durability.info(redis)
    version = info.get("valkey_version") or info.get("redis_version", "0.0")
    if tuple(map(int, version.split(".")[:2])) < OLDEST_REDIS:
        yield Finding("problem", f"{name}: version {version} is too old; 7.0 or newer is needed")
    else:
        yield Finding("ok", f"{name}: answers, version {version}")
    wanted = durability.wanted(config)
    verdict = judge(await durability.observe(redis), wanted)
    for one in verdict.weaknesses:
        below = one.stops or one.leaves < wanted.profile
        yield Finding("problem" if below else "warning", one.line.replace("redis:", f"{name}:", 1))


async def _postgres(
    config: settings.Settings, redis: Cluster[Multiplexer], times: Sequence[int]
) -> AsyncIterator[Finding]:
    try:
        connection = await db.connect(config.database_url)
    except (*db.UNAVAILABLE, db.PostgresError) as error:
        line = db.misconfigured(error) or (
            f"no connection ({type(error).__name__}); is DATABASE_URL right and Postgres running?"
        )
        yield Finding("problem", f"postgres: {line}")
        return
    try:
        major = connection.get_server_version().major
        if major < OLDEST_POSTGRES:
            yield Finding("problem", f"postgres: version {major} is too old; 15 or newer is needed")
        else:
            yield Finding("ok", f"postgres: answers, version {major}")
        missing = await migrate.pending(connection)
        if missing:
            yield Finding("problem", f"postgres: {missing[0]} is not applied; ./run migrate")
            return
        yield Finding("ok", "postgres: every migration is applied")
        async for finding in _together(config, connection, redis, times):
            yield finding
    except migrate.MigrationError as error:
        yield Finding("problem", f"postgres: {error}")
    finally:
        await connection.close()


async def _together(
    config: settings.Settings,
    connection: db.Connection,
    redis: Cluster[Multiplexer],
    times: Sequence[int],
) -> AsyncIterator[Finding]:
    """What only shows when both are looked at."""
    try:
        await loops.check_partitions(connection, config.partitions, fix=False)
    except loops.PartitionsChanged as error:
        yield Finding("problem", str(error))
        return
    if await store.newest_plan(connection, config.default_tier) is None:
        yield Finding("problem", "BILLING_TIER_DEFAULT: names a plan that is not in the catalogue")
    if not times:
        return
    now = ms_of(await connection.fetchval("SELECT clock_timestamp()"))
    skew = max(abs(one - now) for one in times)
    if skew > SKEW_WARNING_MS:
        level: Level = "problem" if skew > SKEW_PROBLEM_MS else "warning"
        yield Finding(level, f"clocks: Redis and Postgres are {skew // 1000} s apart; check NTP")
    else:
        yield Finding("ok", "clocks: Redis and Postgres agree")
    if ahead := await store.clock_offset(connection):
        yield Finding(
            "warning",
            f"clocks: POST /test-clock has moved the service's time ahead by "
            f"{timedelta(seconds=ahead // 1000)}; it stays so, only another database is at today",
        )
    async for finding in _partitions(config, connection, redis):
        yield finding


async def _partitions(
    config: settings.Settings, connection: db.Connection, redis: Cluster[Multiplexer]
) -> AsyncIterator[Finding]:
    lag, foreign, gaps, silent = 0, [], [], []
    for row in await store.cursors(connection):
        try:
            partition = await standing(redis, row.partition)
            end = await floor(redis, row.partition)
        except RedisUnavailable:
            silent.append(str(row.partition))
            continue
        lag += partition.undrained
        if partition.replid not in (None, row.replid):
            foreign.append(str(row.partition))
        if keys.before(row.last_id, end):
            gaps.append(str(row.partition))
    if silent:
        yield Finding(
            "problem",
            f"redis: no server answers for partitions {', '.join(silent)}; their accounts are "
            "refused until one does",
        )
    if foreign:
        yield Finding(
            "problem",
            f"redis: partitions {', '.join(foreign)} hold a history that this database does not "
            "know; are REDIS_URL and DATABASE_URL of the same installation? If they are, look at "
            f"./run adopt-redis {' '.join(foreign)}",
        )
    if gaps:
        yield Finding(
            "problem",
            f"postgres: partitions {', '.join(gaps)} lack usage that Redis no longer has: restore "
            f"a later backup, or look at ./run accept-gap {' '.join(gaps)}",
        )
    if letters := await store.count_open_dead_letters(connection):
        yield Finding("warning", f"ledger: {letters} dead letters; ./run dead-letters list")
    billing = await billing_state.look(connection)
    for reason in billing.reasons():
        yield Finding("warning", f"ledger: {reason}; docs/runbooks.md says what to do")
    for reason in (await audit_state.look(connection)).reasons():
        yield Finding("warning", f"ledger: {reason}; docs/audit.md says what to do")
    yield _stripe(config, billing.stripe, await store.metering.mode(connection))
    yield Finding("ok", f"ledger: {lag} entries wait to be drained")


def _stripe(config: settings.Settings, state: StripeState, mode: str) -> Finding:
    what = "invoices" if mode == "invoices" else "invoices or meter events"
    stand = f"{state.waiting} {what} wait, {state.parked} calls are parked; STRIPE_MODE is {mode}"
    if mode != config.stripe_mode:
        return Finding(
            "warning",
            f"stripe: STRIPE_MODE is {config.stripe_mode} here, but the ledger was started with "
            f"{mode}: set the same here, or restart the ledger with the one that is meant",
        )
    if config.stripe_api_key is None:
        return Finding(
            "ok",
            f"stripe: STRIPE_API_KEY is not set here; a ledger without it sends nothing; {stand}",
        )
    stopped = "stopped, Stripe refuses the API key" if state.is_stopped else "on"
    return Finding("ok", f"stripe: delivery is {stopped}; {stand}")


async def _redis_time(redis: Multiplexer) -> int:
    seconds, micros = await redis.run("TIME")
    return int(seconds) * 1000 + int(micros) // 1000
