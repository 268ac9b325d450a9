"""What an operator decides of a partition that goes on by nobody else's word.

A gap: the database was restored from before what Redis still has. Another history: Redis holds one
that the ledger has left behind or never knew. Either decision begins a new epoch, in which every
quota is rebuilt from the ledger, and leaves an audit event in the same transaction. Where that
does not commit, nothing goes on: the decision is made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

import msgspec

from ledger import store
from ledger.db import Connection
from ledger.domain.usage import count_of
from ledger.recovery import Superseded, recover
from lua import keys
from lua.packing import Malformed, unpack_said
from lua.scripts import Scripts
from lua.standing import History, Redis, history
from lua.types import Recovery

PAGE = 1000  # entries read at once while the partition stands still
LEFT = "recorded by a server that was adopted later, before what the ledger had drained"

Entry = tuple[str, dict[str, bytes]]


class NothingToDecide(Exception):
    """The partition is in order as far as this decision goes; the message says how."""


class NoSuchPartition(Exception):
    """The database was not made with so many; the message says which there are."""


class Situation(msgspec.Struct, frozen=True):
    """A partition as the ledger and Redis see it."""

    row: store.Cursor
    redis: History

    @property
    def gap(self) -> bool:
        return keys.before(self.row.last_id, self.redis.floor)

    @property
    def missing(self) -> int | None:
        """Entries after the cursor that Redis has trimmed; None when its count cannot be meant."""
        found = self.redis.trimmed - self.row.drained
        return found if self.gap and found > 0 else None

    @property
    def foreign(self) -> bool:
        return self.redis.replid not in (None, self.row.replid)


async def situation(connection: Connection, redis: Redis, partition: int) -> Situation:
    """How a partition stands. Raises `NoSuchPartition`."""
    if not 0 <= partition < (partitions := await store.count_cursors(connection)):
        raise NoSuchPartition(
            f"there is no partition {partition}, only 0 to {partitions - 1}"
            if partitions
            else "there is no partition yet; start ./run"
        )
    redis_says = await history(redis, partition)
    return Situation(await store.cursor(connection, partition), redis_says)


class Adoption:
    """Carries out an operator's decisions; `actor` is who decides, `at` when, `reason` why."""

    def __init__(
        self,
        connection: Connection,
        redis: Redis,
        scripts: Scripts,
        *,
        actor: str,
        at: datetime,
        reason: str,
    ) -> None:
        self._connection = connection
        self._redis = redis
        self._scripts = scripts
        self._actor = actor
        self._at = at
        self._reason = reason

    async def accept_gap(self, partition: int) -> None:
        """Goes on after a gap: what was recorded in it stays missing. Raises
        `NothingToDecide`, `ledger.recovery.Superseded`, `ledger.db.LockNotAvailable`."""
        await recover(self._connection, self._scripts, partition)
        async with self._connection.transaction():
            row = await store.hold_cursor(self._connection, partition)
            found = Situation(row, await history(self._redis, partition))
            if not found.gap:
                raise NothingToDecide(f"partition {partition} has no gap")
            drained = row.drained + (found.missing or 0)
            floor = found.redis.floor
            await store.skip_gap(self._connection, partition, floor, drained)
            await self._decide(row, cursor=floor, drained=drained)
            details = {"after": row.last_id, "through": floor, "missing": found.missing}
            await self._audit("gap_accepted", row, details)

    async def adopt(self, partition: int) -> int:
        """Believes the server that answers, whatever history it holds. What it recorded before the
        cursor, and the ledger does not have, is parked; returns how many entries. Raises
        `NothingToDecide`, `ledger.db.LockNotAvailable`."""
        try:
            await recover(self._connection, self._scripts, partition)
        except Superseded:
            pass
        else:
            raise NothingToDecide(f"partition {partition} is believed already")
        async with self._connection.transaction():
            row = await store.hold_cursor(self._connection, partition)
            decided = await self._decide(row, cursor=row.last_id, drained=row.drained)
            parked = await self._park_left_behind(row)
            await self._audit(
                "redis_adopted",
                row,
                {
                    "from": row.replid,
                    "to": decided.replid,
                    "cursor": row.last_id,
                    "parked": parked,
                },
            )
        return parked

    async def _park_left_behind(self, row: store.Cursor) -> int:
        """Keeps as dead letters what the drain will not read, because the cursor has passed it."""
        parked, after = 0, "0-0"
        while True:
            tail = await self._scripts.read(row.partition, after=after, count=PAGE)
            passed = [one for one in tail.entries if not keys.before(row.last_id, one[0])]
            for stream_id, fields in await self._unknown(passed):
                await store.insert_dead_letter(
                    self._connection, row.partition, stream_id, fields, LEFT, count_of(fields)
                )
                parked += 1
            if len(passed) < PAGE:
                return parked
            after = passed[-1][0]

    async def _unknown(self, entries: list[Entry]) -> list[Entry]:
        """Those whose usage is not in the ledger; what is no usage entry was never counted."""
        ids: dict[str, bytes] = {}
        for stream_id, fields in entries:
            with suppress(KeyError, Malformed):
                ids[stream_id] = unpack_said(fields["event"]).usage_id
        known = await store.known_keys(self._connection, list(ids.values()))
        return [one for one in entries if one[0] in ids and ids[one[0]] not in known]

    async def _decide(self, row: store.Cursor, *, cursor: str, drained: int) -> Recovery:
        decided = await self._scripts.recover(
            row.partition,
            row_replid=row.replid,
            epoch=row.epoch,
            cursor=cursor,
            drained=drained,
            acked="0-0",
            offset=await store.clock_offset(self._connection),
            decided=True,
        )
        await store.vouch(self._connection, row.partition, decided.epoch, decided.replid)
        return decided

    async def _audit(
        self, event_type: str, row: store.Cursor, details: Mapping[str, str | int | None]
    ) -> None:
        said = {"partition": row.partition, **details, "reason": self._reason}
        await store.insert_audit_event(self._connection, event_type, self._actor, said, self._at)
