"""What the hash of an event covers, and how events get their places."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from ledger import db, store
from ledger.audit import events
from ledger.audit.sealing import BATCH, Sealer
from ledger.domain.audit import FIRST_HEAD, Event, canonical, link
from tests.audit.conftest import AT

EVENT = Event(
    event_id=UUID("01a20255-c9e5-72ee-a80c-079130b4c9bb"),
    event_type="plan_changed",
    actor="olga",
    user_id=None,
    organization_id=UUID(int=7),
    details='{"b": 1.50, "a": ["Zoë", null, true, 3], "aa": {"y": "\\n\\"", "x": ""}}',
    occurred_at=AT,
    noted_at=AT + timedelta(microseconds=5),
)
OTHER: dict[str, object] = {
    "event_id": UUID(int=1),
    "event_type": "plan_change",
    "actor": "dolga",
    "user_id": UUID(int=7),
    "organization_id": None,
    "details": "{}",
    "occurred_at": AT + timedelta(microseconds=1),
    "noted_at": AT,
}


def test_the_hash_of_an_event_never_changes() -> None:
    # Another value here would make every ledger look tampered with.
    assert canonical(EVENT, 3, FIRST_HEAD).decode() == (
        '["billing-audit",1,"control",3,'
        '"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",'
        '"01a20255-c9e5-72ee-a80c-079130b4c9bb","plan_changed","olga",null,'
        '"00000000-0000-0000-0000-000000000007","2026-11-23T10:00:00.000000Z",'
        '"2026-11-23T10:00:00.000005Z",'
        '{"a":["Zoë",null,true,3],"aa":{"x":"","y":"\\n\\""},"b":1.50}]'
    )
    said = canonical(EVENT, 3, FIRST_HEAD)
    assert link(EVENT, 3, FIRST_HEAD).hash == hashlib.sha256(said).digest()


@pytest.mark.parametrize("name", Event.__struct_fields__)
def test_the_hash_changes_with_every_field(name: str) -> None:
    other = msgspec.structs.replace(EVENT, **{name: OTHER[name]})
    assert link(other, 3, FIRST_HEAD).hash != link(EVENT, 3, FIRST_HEAD).hash


def test_the_hash_changes_with_the_place_and_with_what_is_before_it() -> None:
    hashes = {link(EVENT, 3, b"a").hash, link(EVENT, 4, b"a").hash, link(EVENT, 3, b"b").hash}
    assert len(hashes) == 3


async def note(connection: db.Connection, actor: str = "olga") -> None:
    details = {"ë": "ü\u2028", "n": 2**53, "nested": {"b": [1], "a": None}}
    await store.insert_audit_event(connection, "plan_changed", actor, details, AT)


async def test_an_auditor_recomputes_the_hashes_with_nothing_of_ours(
    connection: db.Connection,
) -> None:
    """As docs/audit.md says, by another JSON library."""
    for _ in range(3):
        await note(connection)
    assert await Sealer(connection).run_once() == 3
    previous = hashlib.sha256(b"")
    for row in await connection.fetch("SELECT * FROM audit_events ORDER BY sequence"):
        times = [
            row[name].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            for name in ("occurred_at", "noted_at")
        ]
        said = [
            "billing-audit", 1, "control", row["sequence"], previous.hexdigest(),
            str(row["event_id"]), row["event_type"], row["actor"], None, None, *times,
            json.loads(row["details"]),
        ]  # fmt: skip
        text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        previous = hashlib.sha256(text.encode())
        assert row["hash"] == previous.digest()


async def test_an_event_that_commits_late_comes_after_those_that_were_sealed(
    connection: db.Connection, database_url: str
) -> None:
    slow = await db.connect(database_url)
    try:
        began = slow.transaction()
        await began.start()
        await note(slow, "slow")
        await note(connection, "quick")
        sealer = Sealer(connection)
        assert await sealer.run_once() == 1, "who writes an event holds up nobody's"
        assert await sealer.run_once() == 0
        await began.commit()
        assert await sealer.run_once() == 1
    finally:
        await slow.close()
    actors = "SELECT array_agg(actor ORDER BY sequence) FROM audit_events"
    assert await connection.fetchval(actors) == ["quick", "slow"]


async def test_many_sealers_make_one_chain(connection: db.Connection, database_url: str) -> None:
    others = [await db.connect(database_url) for _ in range(3)]
    try:
        waiting = BATCH + 20
        for _ in range(waiting):
            await note(connection)
        sealers = [Sealer(one) for one in others]
        sealed = 0
        while sealed < waiting:
            sealed += sum(await asyncio.gather(*(one.run_once() for one in sealers)))
        assert sealed == waiting
    finally:
        for one in others:
            await one.close()
    async with connection.transaction():
        checked = await events.check(connection)
    assert (checked.rows, checked.findings.all) == (waiting, [])


async def test_a_sealer_that_dies_leaves_the_events_for_the_next(
    connection: db.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await note(connection)
    dying = await db.connect(database_url)

    async def die(*_: object) -> None:
        await dying.close()
        raise RuntimeError

    with monkeypatch.context() as broken, pytest.raises(db.UNAVAILABLE):
        broken.setattr(store.audit, "set_head", die)
        await Sealer(dying).run_once()
    assert await Sealer(connection).run_once() == 1
    async with connection.transaction():
        assert (await events.check(connection)).findings.all == []


async def test_events_of_before_the_chain_are_sealed_as_well(connection: db.Connection) -> None:
    await connection.execute(
        "INSERT INTO audit_events (event_type, actor, occurred_at)"
        " VALUES ('redis_history_lost', 'ledger', $1)",
        datetime(2025, 1, 1, tzinfo=UTC),
    )
    assert await Sealer(connection).run_once() == 1
