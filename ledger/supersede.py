"""Has a change of a subscription reach every quota that was loaded under its earlier terms.

1. the change commits with a new version and an outbox row: `owe`
2. every quota that may hold earlier terms becomes a stub, and the stream says so: `Superseder.send`
3. the next request misses and loads the new terms
4. the drain passes the entries, and the outbox row is done

Whoever changed the subscription sends at once and answers then, so that the next request is on the
new terms. A crash between, or a fail-over that loses the stubs, loses the entries too: the ledger
sends again what is not drained.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog

from ledger import store
from ledger.db import Executor
from ledger.domain.control import Control, Kind, encode_control
from ledger.domain.plan import Scope
from ledger.domain.usage import ms_of
from ledger.recovery import Superseded, recover
from ledger.snapshot import NoDefaultTier
from ledger.store.subscriptions import Subscription
from lua import keys
from lua.connection import RedisUnavailable
from lua.scripts import Scripts
from lua.types import Fenced

log = structlog.get_logger()

TOPIC = "supersede"
RESEND_S = 10  # longer than an entry takes to be drained when nothing is wrong
BATCH = 100
OVERDUE_S = 300  # far more than an outage that is being mended: somebody should look
# What a partition's server is away for; those of others may answer.
AWAY = (RedisUnavailable, Superseded, Fenced)


class NewTerms(msgspec.Struct, frozen=True):
    """The subscription whose terms have changed, and the version they have since."""

    subscription_id: UUID
    scope: Scope
    user_id: UUID
    organization_id: UUID | None
    version: int
    closes: datetime | None = None  # the end of a period: refused by a Redis that is not there yet

    @classmethod
    def of(cls, one: Subscription, version: int, closes: datetime | None = None) -> NewTerms:
        return cls(
            one.subscription_id, one.scope, one.user_id, one.organization_id, version, closes
        )


async def owe(db: Executor, change: NewTerms) -> int:
    """Notes that a change must reach Redis, in the transaction that makes it; the outbox row."""
    return await store.outbox.insert(db, TOPIC, msgspec.json.encode(change).decode())


class Superseder:
    def __init__(self, scripts: Scripts, default_tier: str, partitions: int) -> None:
        self._scripts = scripts
        self._default_tier = default_tier
        self._partitions = partitions

    async def run_once(self, db: Executor) -> int:
        """Sends what is owed and not drained; how many."""
        due = await store.outbox.due(db, TOPIC, BATCH)
        for outbox_id in due:
            await self.reach(db, outbox_id)
        overdue = await store.outbox.overdue(db, OVERDUE_S)
        if overdue.rows:
            log.error("outbox_overdue", **msgspec.structs.asdict(overdue))
        return len(due)

    async def reach(self, db: Executor, outbox_id: int) -> None:
        """`send` for who has others to send: what Redis could not be told is still owed."""
        try:
            await self.send(db, outbox_id)
        except AWAY as error:
            reason = type(error).__name__
            await store.outbox.explain(db, outbox_id, reason)
            log.warning("supersede_waiting", reason=reason)

    async def send(self, db: Executor, outbox_id: int) -> None:
        """Sends one change; nothing when it is done or another sends it. Safe to repeat. What it
        raises when Redis or Postgres is away leaves it owed."""
        payload = await store.outbox.claim(db, outbox_id, RESEND_S)
        if payload is None:
            return
        change = msgspec.json.decode(payload, type=NewTerms)
        versions = await self._overtaken(db, change)
        # Before the first entry: it may be drained as soon as it is there.
        await store.outbox.await_partitions(db, outbox_id, versions)
        kind: Kind = "supersede" if change.closes is None else "close"
        said = Control(kind, outbox_id, change.subscription_id.bytes, change.version)
        not_before = 0 if change.closes is None else ms_of(change.closes)
        args: dict[str, Any] = {"control": encode_control(said), "not_before": not_before}
        away: Exception | None = None
        for partition, subjects in versions.items():
            try:
                await self._say(db, partition, subjects, args)
            except AWAY as error:
                away = error  # of a cluster's servers, the others admit usage still
        if away is not None:
            raise away

    async def _say(
        self, db: Executor, partition: int, subjects: dict[bytes, int], args: dict[str, Any]
    ) -> None:
        try:
            await self._scripts.supersede(partition, subjects, **args)
        except Fenced:
            await recover(db, self._scripts, partition)
            await self._scripts.supersede(partition, subjects, **args)

    async def _overtaken(self, db: Executor, change: NewTerms) -> dict[int, dict[bytes, int]]:
        """Per partition the quotas that may hold earlier terms, and the version each must have.
        Read after the change is committed: what is loaded later sees it. Of an organisation the
        pool alone: a user's quota is used only beside the pool that it was loaded with."""
        default = await store.newest_plan(db, self._default_tier)
        if default is None:
            raise NoDefaultTier
        found: dict[int, dict[bytes, int]] = defaultdict(dict)

        async def add(subject: bytes, user_id: UUID | None, organization_id: UUID | None) -> None:
            own, shared = await store.terms_versions(db, user_id, organization_id)
            partition = keys.partition_of(subject, self._partitions)
            found[partition][subject] = own + shared + default.version

        if change.scope == "organization":
            assert change.organization_id is not None
            await add(b"o" + change.organization_id.bytes, None, change.organization_id)
            return found
        user_id = change.user_id
        await add(b"u" + user_id.bytes, user_id, None)
        for organization_id in await store.organizations_of_user(db, user_id):
            subject = b"o" + organization_id.bytes + user_id.bytes
            await add(subject, user_id, organization_id)
        return found
