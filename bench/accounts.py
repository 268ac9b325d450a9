"""Plans and subscriptions of the populations, and their quotas put into Redis in bulk."""

from __future__ import annotations

import asyncio
from datetime import date
from uuid import UUID

import asyncpg
import msgspec

from bench.rig import PARTITIONS, Rig
from bench.traffic import HOT, LIMITED, QUANTITY, SMALL, USAGE_TYPE, Population
from ledger import clock
from ledger.domain.usage import encode_terms, ms_of
from ledger.recovery import recover
from ledger.snapshot import Snapshot, snapshot
from lua import keys
from lua.keys import Account, partition_of
from lua.multiplexer import Multiplexer
from lua.scripts import Scripts
from lua.types import Limit, LoadOutcome

LIMITED_RECORDS = 500  # that the limited organisation's pool has room for
_WIDE, _NARROW = "bench_wide", "bench_narrow"
_LIMITS = {
    # usage units: user cap, pool
    _WIDE: (10**9, 10**12 - 1),
    _NARROW: (10**9, LIMITED_RECORDS * QUANTITY),
}
_CALENDAR_MONTH = date(2000, 1, 1)


async def add_plans(sql: asyncpg.Connection[asyncpg.Record]) -> None:
    """Hard limits for every user and every pool: all of them are checked, few ever bind."""
    for tier, (user, pool) in _LIMITS.items():
        entitlements = [
            {"usage_type": USAGE_TYPE, "scope": scope, "limit": str(limit), "enforcement": "hard"}
            for scope, limit in (("user", user), ("organization", pool))
        ]
        await sql.execute(
            "INSERT INTO billing_plans (plan_tier, version, name, currency, interval, base_fee,"
            " entitlements, prices) VALUES ($1::TEXT, 1, $1::TEXT, 'USD', 'month', 0, $2, '[]')",
            tier,
            msgspec.json.encode(entitlements).decode(),
        )
    for population, tier in ((SMALL, _WIDE), (HOT, _WIDE), (LIMITED, _NARROW)):
        await subscribe(sql, population, tier)


async def subscribe(
    sql: asyncpg.Connection[asyncpg.Record], population: Population, tier: str = _WIDE
) -> None:
    """Puts the organisations of a population on a plan."""
    await sql.executemany(
        "INSERT INTO subscriptions (user_id, organization_id, scope, plan_tier, plan_version,"
        " status, anchor) VALUES ($1, $2, 'organization', $3, 1, 'active', $4)",
        [
            (population.owner(one), UUID(population.organization(one)), tier, _CALENDAR_MONTH)
            for one in range(population.organizations)
        ],
    )


async def load(rig: Rig, population: Population) -> None:
    """Loads every quota of a population by the load script, as a first request would; the
    snapshot is taken once per organisation, so that this is no benchmark of Postgres."""
    redis = Multiplexer(rig.store.url)
    scripts = Scripts(redis)
    try:
        for partition in range(PARTITIONS):
            await recover(rig.sql, scripts, partition)  # else untouched ones are fenced
        for number in range(population.organizations):
            await _load_organization(rig, scripts, population, number)
    finally:
        await redis.close()


async def _load_organization(
    rig: Rig, scripts: Scripts, population: Population, number: int
) -> None:
    organization = UUID(population.organization(number))
    members = [
        Account(UUID(population.user(user)), organization)
        for user in range(number, population.users, population.organizations)
    ]
    pool = keys.pool_of(members[0].who)
    assert pool is not None
    partition = partition_of(pool, PARTITIONS)
    # All members' quotas are alike: one snapshot stands for them all.
    one = await snapshot(rig.sql, partition, members[0].who, clock.now(), "basic")
    shared = await snapshot(rig.sql, partition, pool, clock.now(), "basic")
    outcomes = await asyncio.gather(
        _load_subject(scripts, partition, shared, pool),
        *(_load_subject(scripts, partition, one, member.who) for member in members),
    )
    assert set(outcomes) == {LoadOutcome.LOADED}, "a quota was not loaded: is all drained?"


async def _load_subject(
    scripts: Scripts, partition: int, shot: Snapshot, subject: bytes
) -> LoadOutcome:
    return await scripts.load(
        partition,
        subject,
        epoch=shot.cursor.epoch,
        version=shot.version,
        revision=shot.cursor.revision,
        starts=ms_of(shot.period.start),
        ends=ms_of(shot.period.end),
        good_until=ms_of(shot.good_until),
        cursor=shot.cursor.last_id,
        through=shot.cursor.last_id,
        terms=encode_terms(shot.terms),
        blocked="",
        pool_version=shot.pool_version,
        limits=[Limit(one.usage_type, one.enforcement, one.limit, 0, 0, 0) for one in shot.rules],
    )
