"""What must hold at every moment of rest, asked of a Redis and a Postgres.

Each question answers with what it found wrong, in words; nothing is found in a sound system. The
tests ask the same questions (`tests/flow/invariants.py`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from chaos.told import Told
from ledger import db, store
from ledger.audit import verify
from ledger.domain.usage import ms_of
from ledger.store.seals import Head
from lua import keys
from lua.connection import RedisConnection
from lua.packing import NONE, unpack_counted, unpack_said, unpack_state
from lua.scripts import Scripts

_SHOWN = 3  # examples in a line
_PAGE = 10_000
_LAST = 2**62  # a position beyond all

Chains = dict[int, Head]  # how far each partition's chain was found whole
Entries = list[dict[str, bytes]]
Units = Counter[tuple[str, str, int]]  # by subject, usage type and start of the period in ms


class System(msgspec.Struct, frozen=True):
    """The two places where usage is kept."""

    sql: db.Connection
    redis: RedisConnection
    scripts: Scripts


async def violations(
    system: System, told: Told | None = None, seals: Chains | None = None
) -> list[str]:
    """Everything that is wrong; undrained entries count as recorded. `seals`: those that were
    checked before need not be again."""
    undrained = await undrained_entries(system)
    return [
        *(await _acknowledged_is_recorded(system, undrained, told) if told else []),
        *await one_row_per_id(system.sql),
        *await totals_are_sums(system.sql),
        *await redis_counts_what_the_ledger_does(system, undrained),
        *await no_hard_limit_is_passed(system.sql),
        *await counters_have_no_gaps(system.sql),
        *await seals_fit(system.sql, {} if seals is None else seals),
    ]


async def undrained_entries(system: System) -> Entries:
    """Usage entries that are not in the ledger yet."""
    found: Entries = []
    for cursor in await store.cursors(system.sql):
        after = cursor.last_id
        while True:
            tail = await system.scripts.read(cursor.partition, after=after, count=_PAGE)
            found += [fields for _, fields in tail.entries if "event" in fields]
            if len(tail.entries) < _PAGE:
                break
            after = tail.entries[-1][0]
    return found


async def _acknowledged_is_recorded(system: System, undrained: Entries, told: Told) -> list[str]:
    """I1: nothing that was acknowledged is missing, nothing that was refused is there."""
    rows = await system.sql.fetch("SELECT usage_id FROM usage_keys")
    recorded = {row["usage_id"].bytes for row in rows}
    recorded |= {unpack_said(one["event"]).usage_id for one in undrained}
    return [
        *_line("I1: acknowledged, but not recorded", _ids(told.acked - recorded - told.lost)),
        *_line("I1: recorded, but nobody was told", _ids(recorded - told.acked - told.maybe)),
    ]


async def one_row_per_id(sql: db.Connection) -> list[str]:
    """I2: a usage id that ever counted is one row, and no other id is."""
    differing = await sql.fetch(
        """
        SELECT usage_id, COUNT(r.usage_id) AS rows, COUNT(k.usage_id) AS keys
        FROM usage_records r FULL JOIN usage_keys k USING (usage_id)
        GROUP BY usage_id HAVING COUNT(r.usage_id) <> 1 OR COUNT(k.usage_id) <> 1
        """
    )
    return _line("I2: not one row for one id", _ids(row["usage_id"].bytes for row in differing))


async def totals_are_sums(sql: db.Connection) -> list[str]:
    """The running totals of every subject, and of what is to be invoiced, are the sums of rows."""
    totals = [f"{one.subject} {one.usage_type}" for one in await store.wrong_totals(sql)]
    payers = [f"{one.subscription_id} {one.usage_type}" for one in await store.billable.wrong(sql)]
    return [
        *_line("totals are not the sums of their rows", totals),
        *_line("I6: what is to be invoiced is not the sum of its rows", payers),
    ]


async def redis_counts_what_the_ledger_does(system: System, undrained: Entries) -> list[str]:
    """I3, for every quota hash of the epoch in force."""
    expected = await _ledger_units(system.sql)
    expected.update(_waiting_units(undrained))
    wrong = []
    for cursor in await store.cursors(system.sql):
        for subject, quota in await _quotas(system.redis, cursor.partition):
            if not quota.get("state") or unpack_state(quota["state"]).epoch != cursor.epoch:
                continue
            starts = unpack_state(quota["state"]).starts
            if starts == 0:
                continue  # unloaded: it is loaded before it is used
            for name in quota:
                if not name.startswith("rule:"):
                    continue
                usage_type = name.removeprefix("rule:")
                used = int(quota.get(f"used:{usage_type}", 0))
                ledger = expected[subject, usage_type, starts]
                if used != ledger:
                    wrong.append(f"{subject} {usage_type}: Redis {used}, ledger {ledger}")
    return _line("I3: counted otherwise than recorded", wrong)


async def _ledger_units(sql: db.Connection) -> Units:
    """Rows and open dead letters."""
    rows = await sql.fetch(
        """
        WITH counted AS (
            SELECT t.subject, t.usage_type, t.quota_period AS starts, t.quantity / u.unit AS units
            FROM usage_totals t JOIN usage_types u USING (usage_type)
            UNION ALL
            SELECT subject, usage_type, quota_period, units FROM dead_letters
            WHERE status = 'open' AND usage_type IS NOT NULL
            UNION ALL
            SELECT split_part(subject, ':user:', 1), usage_type, pool_period, units
            FROM dead_letters
            WHERE status = 'open' AND usage_type IS NOT NULL AND pool_period IS NOT NULL)
        SELECT subject, usage_type, starts, SUM(units)::BIGINT AS units
        FROM counted GROUP BY 1, 2, 3
        """
    )
    found: Units = Counter()
    for row in rows:
        found[row["subject"], row["usage_type"], ms_of(row["starts"])] = row["units"]
    return found


def _waiting_units(undrained: Entries) -> dict[tuple[str, str, int], int]:
    waiting: dict[tuple[str, str, int], int] = defaultdict(int)
    for fields in undrained:
        said, counted = unpack_said(fields["event"]), unpack_counted(fields["quota"])
        who, usage_type = said.who, said.usage_type.decode()
        for subject, starts in ((who, counted.starts), (who[:17], counted.pool_starts)):
            if starts != NONE:
                waiting[keys.subject_text(subject), usage_type, starts] += counted.units
    return waiting


async def _quotas(redis: RedisConnection, partition: int) -> list[tuple[str, dict[str, bytes]]]:
    """Subjects in words, and the fields of their quota hashes."""
    names = [name async for name in redis.client.scan_iter(f"quota:{{p{partition:02d}}}:*", 1000)]
    pipeline = redis.client.pipeline(transaction=False)
    for name in names:
        pipeline.hgetall(name)
    return [
        (
            name.decode().partition("}:")[2],
            {field.decode(): value for field, value in fields.items()},
        )
        for name, fields in zip(names, await pipeline.execute(), strict=True)
    ]


async def seals_fit(sql: db.Connection, chains: Chains) -> list[str]:
    """I9: the audit chains, computed again from the rows; those of usage on from where they were
    whole, which they are kept in."""
    found = []
    for partition in await store.seals.usage_heads(sql):
        checked = await verify.usage(sql, partition, chains.get(partition))
        found += checked.findings.all[:_SHOWN]
        if not checked.findings.all:
            chains[partition] = Head(checked.at, checked.head)
    found += (await verify.control(sql)).findings.all[:_SHOWN]
    return [f"I9: the seals of {one.said}" for one in found]


async def no_hard_limit_is_passed(sql: db.Connection) -> list[str]:
    """I4, by the terms that each unit was admitted under."""
    passed = [
        row["usage_id"].bytes
        for cursor in await store.cursors(sql)
        for row in await store.rows_at_fault(sql, "passed_limits", cursor.partition, 0, _LAST)
    ]
    return _line("I4: past a hard limit", _ids(dict.fromkeys(passed)))


async def counters_have_no_gaps(sql: db.Connection) -> list[str]:
    """I5: each counter's value before a record is its value after the one before it, also when
    Redis was lost between the two: what is rebuilt from the ledger goes on where it was. Refunds
    and dead letters count as well and have no row here, nor has what an operator accepted to be
    missing: with any of them nothing is compared."""
    if await sql.fetchval(
        "SELECT EXISTS (SELECT FROM usage_refunds) OR EXISTS (SELECT FROM dead_letters)"
        " OR EXISTS (SELECT FROM audit_events"
        " WHERE event_type IN ('gap_accepted', 'redis_adopted'))"
    ):
        return []
    gaps = await sql.fetch(
        """
        WITH counted AS (
            SELECT user_id::TEXT || COALESCE(organization_id::TEXT, '') AS counter, usage_type,
                   quota_period, used_after AS after, quantity, partition, position
            FROM usage_records
            UNION ALL
            SELECT organization_id::TEXT, usage_type, pool_period, pool_used_after, quantity,
                   partition, position
            FROM usage_records WHERE organization_id IS NOT NULL)
        SELECT * FROM (
            -- A correction whose counter was not in Redis has none: what comes next counts it.
            SELECT *, COALESCE(LAG(after - sum) OVER counter, 0) + sum - quantity AS before FROM (
                SELECT *, SUM(quantity) OVER (
                    PARTITION BY counter, usage_type, quota_period ORDER BY position) AS sum
                FROM counted) running WHERE after IS NOT NULL
            WINDOW counter AS (PARTITION BY counter, usage_type, quota_period ORDER BY position)
        ) one WHERE after - quantity <> before ORDER BY partition, position
        """
    )
    return _line(
        "I5: a gap in a counter",
        [
            f"{row['counter']} {row['usage_type']}: {row['before']:f}, then {row['after']:f} after"
            f" {row['quantity']:f} (partition {row['partition']}, position {row['position']})"
            for row in gaps
        ],
    )


async def nothing_was_set_aside(sql: db.Connection) -> list[str]:
    """Callers who never use a key in two organisations cause no dead letters; receipts that are
    younger than a day, or looked up in the ledger, no refunds."""
    found = []
    for table in ("dead_letters", "usage_refunds"):
        rows = await sql.fetch(
            f"SELECT partition, stream_id FROM {table}"  # noqa: S608 - our own name
        )
        found += _line(f"set aside in {table}", [f"{p} {one}" for p, one in rows])
    return found


async def losses_are_audited(sql: db.Connection) -> list[str]:
    """I9: the epoch a partition is in has the audit event of the loss that began it."""
    rows = await sql.fetch(
        """
        SELECT partition, epoch FROM stream_cursor c WHERE epoch > 1 AND NOT EXISTS (
            SELECT FROM audit_events e
            WHERE e.event_type IN ('redis_history_lost', 'redis_epoch_began')
            AND (e.details ->> 'partition')::INTEGER = c.partition
            AND (e.details ->> 'recovery')::BIGINT = c.epoch)
        """
    )
    return _line("I9: a loss without audit event", [f"partition {p} epoch {e}" for p, e in rows])


async def no_time_but_that_of_redis(sql: db.Connection) -> list[str]:
    """Whatever a gateway's clock says, records are of the time in which they were recorded."""
    found = await sql.fetch(
        "SELECT usage_id FROM usage_records WHERE recorded_at > NOW() + INTERVAL '1 minute'"
    )
    return _line("recorded in the future", _ids(row["usage_id"].bytes for row in found))


def _ids(found: Iterable[bytes]) -> list[str]:
    return [str(UUID(bytes=one)) for one in found]


def _line(what: str, found: Sequence[Any]) -> list[str]:
    if not found:
        return []
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return [f"{what}: {len(found)}: {'; '.join(map(str, found[:_SHOWN]))}{more}"]
