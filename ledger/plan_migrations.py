"""Brings the subscriptions of a plan to another version of it, one after the other.

1. it is stored what is asked for: `ask`
2. the ledger takes the next subscription, changes it by the rules of any change, and notes how far
   it has come, in one transaction; who may not be changed is noted with the reason
3. the change is sent to Redis, as any other

Stored, because a hundred thousand take many minutes, which no request lasts. A crash anywhere goes
on where it was; of several workers one holds the row.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import structlog

from ledger import store
from ledger.db import UNAVAILABLE, Connection, Pool
from ledger.domain.subscription import NotAllowed
from ledger.store.plan_migrations import Asked, Candidate, Held, Progress
from ledger.subscriptions import Address, Outcome, carry_out
from ledger.supersede import Superseder
from ledger.wishes import NoPlan, Wish, plan_of

log = structlog.get_logger()

BATCH = 50  # subscriptions between looks for periods that are over: about a second


async def ask(pool: Pool, asked: Asked, *, actor: str, now: datetime) -> Progress:
    """Has it done by the ledger; the one that runs where it is the same. Raises `NoPlan` unless
    both versions are there and public."""
    async with pool.acquire() as db, db.transaction():
        for version in (asked.from_version, asked.to_version):
            if version is not None and not await store.catalogue.is_public(
                db, asked.plan_tier, version
            ):
                raise NoPlan
        migration_id = None
        while migration_id is None:  # the one in the way may be done by the time it is looked for
            migration_id = await store.plan_migrations.insert(db, asked, actor, now)
            if migration_id is None:
                migration_id = await store.plan_migrations.running(db, asked)
            elif not asked.preview:
                await store.insert_audit_event(
                    db, "plan_migration_asked", actor, _details(migration_id, asked), now
                )
        found = await store.plan_migrations.progress(db, asked.plan_tier, migration_id)
        assert found is not None
        return found


async def newest_version(pool: Pool, tier: str) -> int:
    """Of the public ones. Raises `NoPlan`."""
    return (await plan_of(pool, tier))[0]


class PlanMigrations:
    """`grace`: as of `ledger.subscriptions.Subscriptions`."""

    def __init__(self, connection: Connection, superseder: Superseder, grace: timedelta) -> None:
        self._db = connection
        self._superseder = superseder
        self._grace = grace

    async def run_once(self, now: datetime) -> int:
        """Works off a part of what was asked for; how many subscriptions it came to."""
        steps = 0
        for migration_id in await store.plan_migrations.unfinished(self._db):
            while steps < BATCH and await self._step(migration_id, now):
                steps += 1
        return steps

    async def _step(self, migration_id: UUID, now: datetime) -> bool:
        async with self._db.transaction():
            held = await store.plan_migrations.hold(self._db, migration_id)
            if held is None:
                return False
            one = await store.plan_migrations.candidate(self._db, held)
            if one is None:
                await self._end(held, now)
                return False
            owed = await self._migrate(held, one, now)
        for outbox_id in owed:
            await self._superseder.reach(self._db, outbox_id)
        return True

    async def _migrate(self, held: Held, one: Candidate, now: datetime) -> list[int]:
        """What is owed to Redis after it."""
        outcome: Outcome | None = None
        owed: list[int] = []
        try:
            outcome, owed = await self._change(held, one, now)
        except NotAllowed as error:
            await store.plan_migrations.skip(self._db, held, one.subscription_id, str(error))
        except UNAVAILABLE:
            raise
        except Exception as error:
            # One that cannot be changed must not hold up all others. Never the error's own text: it
            # may quote a row.
            reason = f"it could not be changed: {type(error).__name__}"
            log.error("not_migrated", subscription_id=str(one.subscription_id), reason=reason)
            await store.plan_migrations.skip(self._db, held, one.subscription_id, reason)
        changed = outcome is not None and outcome.subscription.pending_change is None
        pending = outcome is not None and not changed
        lines = outcome.lines if outcome else ()
        total = sum((line.amount for line in lines), Decimal(0))
        await store.plan_migrations.note(
            self._db, held, one.subscription_id, int(changed), int(pending), total
        )
        return owed

    async def _change(self, held: Held, one: Candidate, now: datetime) -> tuple[Outcome, list[int]]:
        asked = held.asked
        wish = Wish("migrate", asked.plan_tier, asked.moment, plan_version=asked.to_version)
        address = Address(one.scope, one.user_id, one.organization_id)
        return await carry_out(
            self._db, address, wish, held.actor, now, self._grace, preview=asked.preview
        )

    async def _end(self, held: Held, now: datetime) -> None:
        await store.plan_migrations.end(self._db, held, now)
        if not held.asked.preview:
            details = _details(held.migration_id, held.asked)
            await store.insert_audit_event(self._db, "plan_migrated", held.actor, details, now)


def _details(migration_id: UUID, asked: Asked) -> dict[str, object]:
    return {
        "migration_id": str(migration_id),
        "plan_tier": asked.plan_tier,
        "from_version": asked.from_version,
        "to_version": asked.to_version,
        "when": asked.moment,
    }
