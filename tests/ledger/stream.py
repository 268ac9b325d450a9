"""A partition as the record script leaves it, written by hand: entries with any content."""

from __future__ import annotations

from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

from chaos.check import totals_are_sums
from ledger import db, store
from ledger.domain.ids import dev_uuid
from ledger.domain.period import calendar_month
from ledger.domain.seal import seal
from ledger.domain.usage import (
    Payload,
    Terms,
    at_ms,
    encode_payload,
    encode_terms,
    ms_of,
    parse_entry,
)
from lua import keys
from lua.connection import RedisConnection
from tests.entries import packed_entry

TERMS = Terms(None, "basic", 1, 730120, "month", "UTC")  # anchored 2000-01-01
HEAD = sha256(b"").digest()


class Partition:
    """One partition's stream; entries that are added become rows when drained."""

    def __init__(self, redis: RedisConnection, sql: db.Connection, number: int = 0) -> None:
        self.redis, self.sql, self.number = redis, sql, number
        self.now = 0

    async def add(self, **changed: Any) -> str:
        """Appends a usage entry; the id it got. Any field may be changed, in words."""
        return await self.add_raw(packed_entry(self.fields() | changed))

    def fields(
        self,
        *,
        user: str = "ada",
        usage_id: UUID | None = None,
        fingerprint: bytes = b"f" * 8,
        units: int = 1,
        usage_type: str = "api_calls",
        at: int | None = None,
    ) -> dict[str, bytes]:
        at = self.now if at is None else at
        starts = ms_of(calendar_month(at_ms(at)).start)
        return {
            "id": (usage_id or uuid4()).bytes,
            "fingerprint": fingerprint,
            "who": b"u" + dev_uuid(user).bytes,
            "type": usage_type.encode(),
            "quota": b"%d %d %d - %d - - 0 1" % (units, at, starts, units),
            "terms": encode_terms(TERMS),
            "payload": encode_payload(Payload(None, None, None, "test")),
        }

    async def add_raw(self, fields: dict[str, bytes]) -> str:
        flat = [part for pair in fields.items() for part in pair]
        added: bytes = await self.redis.run("XADD", keys.stream(self.number), "*", *flat)
        return added.decode()

    async def synchronise(self) -> None:
        """Takes the server's time for the entries to come."""
        seconds, micros = await self.redis.run("TIME")
        self.now = int(seconds) * 1000 + int(micros) // 1000

    async def last_id(self) -> str:
        [[entry_id, _]] = await self.redis.run(
            "XREVRANGE", keys.stream(self.number), "+", "-", "COUNT", 1
        )
        return str(entry_id.decode())

    async def check(self) -> None:
        """The ledger of this partition agrees with itself and with the stream: totals are the
        rows' sums, the seals chain over the rows, every entry is accounted for once."""
        cursor = await store.cursor(self.sql, self.number)
        assert cursor.last_id == await self.last_id()
        entries = await self.redis.run("XRANGE", keys.stream(self.number), "-", "+")
        by_id = {entry_id.decode(): _fields(said) for entry_id, said in entries}
        rows = await self.sql.fetch(
            "SELECT stream_id, position, usage_id FROM usage_records WHERE partition = $1"
            " ORDER BY position",
            self.number,
        )
        assert len({row["usage_id"] for row in rows}) == len(rows)
        assert await totals_are_sums(self.sql) == []
        await self._check_seals(
            [(row["position"], (row["stream_id"], by_id[row["stream_id"]])) for row in rows]
        )
        parked = await self._ids("dead_letters WHERE status <> 'retried'")
        refunded = await self._ids("usage_refunds")
        recorded = {row["stream_id"] for row in rows}
        assert not recorded & parked and not recorded & refunded and not parked & refunded
        controls = {one for one, fields in by_id.items() if "recovery" in fields}
        assert recorded | parked | refunded | controls == set(by_id)

    async def _ids(self, table: str) -> set[str]:
        sql = f"SELECT partition, stream_id FROM {table}"  # noqa: S608 - our own name
        rows = await self.sql.fetch(sql)
        return {row["stream_id"] for row in rows if row["partition"] == self.number}

    async def _check_seals(self, rows: list[tuple[int, tuple[str, dict[str, bytes]]]]) -> None:
        assert [position for position, _ in rows] == list(range(1, len(rows) + 1))
        seals = await self.sql.fetch(
            "SELECT * FROM audit_seals WHERE partition = $1 ORDER BY last_position", self.number
        )
        head, sealed = HEAD, 0
        for one in seals:
            assert one["previous"] == head
            covered = [
                entry
                for position, entry in rows
                if one["first_position"] <= position <= one["last_position"]
            ]
            assert len(covered) == one["records"]
            sealed += len(covered)
            records = [parse_entry(stream_id, fields) for stream_id, fields in covered]
            made = seal(head, records, partition=self.number, first=one["first_position"])
            assert made.marks == one["marks"]
            assert made.head == one["head"]
            head = made.head
        assert sealed == len(rows)
        stored = "SELECT audit_head FROM stream_cursor WHERE partition = $1"
        assert await self.sql.fetchval(stored, self.number) == head


def _fields(said: Any) -> dict[str, bytes]:
    """An entry's fields, from a client that pairs them up or one that does not."""
    flat = said.items() if isinstance(said, dict) else zip(said[::2], said[1::2], strict=True)
    return {name.decode(): value for name, value in flat}
