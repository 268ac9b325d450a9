"""The audit service gets every event, in order, whatever it does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from structlog.testing import capture_logs

from ledger import db, loops, store
from ledger.audit import work
from ledger.audit.delivery import BATCH, Delivery
from ledger.audit.sealing import Sealer
from ledger.settings import SettingError, Settings, load
from tests.audit.conftest import AT
from tests.audit.service import AuditService
from tests.conftest import Service

WITHIN_S = 30


@pytest.fixture
async def audit() -> AsyncIterator[AuditService]:
    made = AuditService()
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def service(shared: Service) -> Service:
    """One for the module; nothing of before is to be sent."""
    sql = shared.sql
    await sql.execute("TRUNCATE audit_events, audit_deliveries")
    await sql.execute("UPDATE audit_chains SET sequence = 0, head = sha256('')")
    await store.audit_deliveries.begin(sql)
    await sql.execute(
        "UPDATE audit_deliveries SET delivered = position FROM stream_cursor"
        " WHERE chain = 'usage:' || partition"
    )
    return shared


@pytest.fixture
def connection(service: Service) -> db.Connection:
    return service.sql


@pytest.fixture
def delivery(connection: db.Connection, audit: AuditService) -> Delivery:
    return Delivery(connection, audit.url)


async def note(connection: db.Connection, events: int = 1) -> None:
    for _ in range(events):
        await store.insert_audit_event(connection, "plan_changed", "olga", {"a": "ü"}, AT)
    while await Sealer(connection).run_once():
        pass


async def tried(connection: db.Connection, delivery: Delivery) -> int:
    """A try that fails, at an instant at which it is not tried again; the pause after it."""
    async with connection.transaction(isolation="repeatable_read"):  # in which NOW() stands still
        assert await delivery.run_once()
        assert not await delivery.run_once(), "not before its time"
        pause = "SELECT MAX(EXTRACT(EPOCH FROM not_before - NOW()))::INTEGER FROM audit_deliveries"
        return int(await connection.fetchval(pause))


async def due_again(connection: db.Connection) -> None:
    """Lets the pause before the next try pass."""
    await connection.execute("UPDATE audit_deliveries SET not_before = NOW()")


async def test_each_event_is_sent_once_in_order_with_its_place(
    connection: db.Connection, delivery: Delivery, audit: AuditService
) -> None:
    await note(connection, BATCH + 1)
    while await delivery.run_once():
        pass
    assert [one["sequence"] for one in audit.events] == list(range(1, BATCH + 2))
    assert len(set(audit.ids)) == BATCH + 1
    assert audit.requests == [
        (f"control:1-{BATCH}", BATCH),
        (f"control:{BATCH + 1}-{BATCH + 1}", 1),
    ]
    one = audit.events[0]
    row = await connection.fetchrow("SELECT * FROM audit_events WHERE sequence = 1")
    assert row is not None
    assert one["hash"] == row["hash"].hex()
    assert one["details"] == {"a": "ü"}
    assert one["occurred_at"] == "2026-11-23T10:00:00.000000Z"
    assert (await store.audit_deliveries.state(connection)).waiting == 0


async def test_usage_is_sent_in_the_words_of_the_view(
    service: Service, audit: AuditService
) -> None:
    body = {"user_id": "ada", "usage_type": "conversation_minutes", "metadata": {"feature": "x"}}
    for quantity in (1.25, 100):
        assert (await service.post("/usage", {**body, "quantity": quantity}))[0] == 201
    await service.drained()
    assert (await store.audit_deliveries.state(service.sql)).waiting == 2
    while await Delivery(service.sql, audit.url).run_once():
        pass
    assert [one["amount"] for one in audit.events] == [1.25, 100]
    view = await service.sql.fetch(
        "SELECT * FROM usage_audit_events WHERE billing_category = $1 ORDER BY position",
        body["usage_type"],
    )
    for sent, row in zip(audit.events, view, strict=True):
        assert sent["event_id"] == str(row["event_id"])
        for name in ("event_type", "actor", "billing_category"):
            assert sent[name] == row[name]
        assert (sent["user_id"], sent["sequence"]) == (str(row["user_id"]), row["position"])
        assert "metadata" not in sent


async def test_what_was_not_taken_is_sent_again_after_longer_and_longer(
    connection: db.Connection, delivery: Delivery, audit: AuditService
) -> None:
    await note(connection)
    audit.faults = [500, 503, 429, 400, 302]
    waits = []
    with capture_logs() as logs:
        while audit.faults:
            waits.append(await tried(connection, delivery))
            await due_again(connection)
    assert waits == [1, 2, 4, 8, 16]
    assert {one["event"] for one in logs} == {"audit_delivery_waiting"}
    assert audit.ids == []
    await delivery.run_once()
    assert len(audit.ids) == 1
    state = await store.audit_deliveries.state(connection)
    assert (state.waiting, state.failing_s) == (0, 0)


async def test_a_service_that_does_not_answer_is_given_up_and_asked_again(
    connection: db.Connection, audit: AuditService, delivery: Delivery
) -> None:
    await note(connection)
    audit.faults = ["hold"]
    assert await Delivery(connection, audit.url, timeout_s=0.1).run_once()
    audit.faults = []  # where it was given up before it arrived
    await due_again(connection)
    assert await delivery.run_once()
    assert len(set(audit.ids)) == 1


async def test_it_waits_as_long_as_it_is_asked_to(
    connection: db.Connection, delivery: Delivery, audit: AuditService
) -> None:
    await note(connection)
    audit.faults, audit.headers = [503, 503], {"Retry-After": "100"}
    assert await tried(connection, delivery) == 100
    await due_again(connection)
    audit.headers = {"Retry-After": "999999"}
    assert await tried(connection, delivery) == 300, "but not for ever"


async def test_what_was_taken_without_a_word_is_sent_again_with_the_same_ids(
    connection: db.Connection, delivery: Delivery, audit: AuditService
) -> None:
    await note(connection, 2)
    audit.faults = ["lost"]
    await delivery.run_once()
    await due_again(connection)
    await delivery.run_once()
    assert audit.ids[:2] == audit.ids[2:]
    assert len(set(audit.ids)) == 2
    assert audit.requests[0] == audit.requests[1]


async def test_a_chain_that_is_not_taken_holds_up_no_other(
    service: Service, audit: AuditService
) -> None:
    await note(service.sql)
    body = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}
    assert (await service.post("/usage", body))[0] == 201
    await service.drained()
    delivery = Delivery(service.sql, audit.url, first_backoff_s=300)
    audit.faults = [500]
    assert await delivery.run_once()
    assert await delivery.run_once()
    assert not await delivery.run_once()
    assert len(audit.events) == 1


async def test_two_workers_do_not_send_of_one_chain_at_once(
    service: Service, delivery: Delivery, audit: AuditService
) -> None:
    await note(service.sql)
    audit.faults = ["hold"]
    other = await db.connect(service.settings.database_url)
    try:
        sending = asyncio.ensure_future(delivery.run_once())
        async with asyncio.timeout(WITHIN_S):
            await audit.arrived.wait()
        assert not await Delivery(other, audit.url).run_once()
        await audit.close()
        assert await sending
    finally:
        await other.close()


async def test_nobody_there_is_no_reason_to_end(
    connection: db.Connection, delivery: Delivery, audit: AuditService
) -> None:
    await note(connection)
    await audit.close()
    assert await delivery.run_once()
    error = await connection.fetchval("SELECT last_error FROM audit_deliveries WHERE attempts = 1")
    assert error == "ClientConnectorError", "the address is nobody's business"


async def test_a_ledger_seals_and_delivers_by_itself_and_ends_while_the_service_hangs(
    service: Service, audit: AuditService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "CUT_S", 0.05)
    for name in ("SEAL_S", "DELIVER_S"):
        monkeypatch.setattr(work, name, 0.05)
    settings = msgspec.structs.replace(service.settings, audit_service_url=audit.url)
    stop = asyncio.Event()
    with capture_logs() as logs:
        ledger = asyncio.ensure_future(loops.run(settings, stop))
        for fault in (202, "hold"):
            audit.arrived.clear()
            audit.faults = [fault]
            await store.insert_audit_event(service.sql, "plan_changed", "olga", {}, AT)
            async with asyncio.timeout(WITHIN_S):
                await audit.arrived.wait()
        stop.set()
        async with asyncio.timeout(WITHIN_S):
            await ledger
    assert len(audit.events) == 1
    assert [one for one in logs if one["event"] == "audit_heads"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://audit:8084", "http://audit:8084/api/v1/audit/events"),
        ("https://audit/", "https://audit/api/v1/audit/events"),
        ("https://audit/events", "https://audit/events"),
        ("", None),
    ],
)
def test_the_address_is_a_base_or_the_whole(given: str, meant: str | None) -> None:
    assert configured(given).audit_service_url == meant


@pytest.mark.parametrize(
    "given",
    ["audit:8084", "ftp://a", "http://", "http://u:secret@a", "http://a?k=secret", "http://a:0"],
)
def test_another_address_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(SettingError, match="AUDIT_SERVICE_URL") as error:
        configured(given)
    assert "secret" not in str(error.value)


def configured(url: str) -> Settings:
    known = {"DATABASE_URL": "postgresql://localhost/a", "REDIS_URL": "redis://localhost"}
    return load({**known, "AUDIT_SERVICE_URL": url})
