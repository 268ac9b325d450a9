"""What operators are told of the billing cycle, and that what fails holds up nobody."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import structlog

from gateway import doctor
from ledger import cycle, rollover, store, supersede
from ledger.domain.ids import dev_uuid
from ledger.domain.subscription import create
from lua.connection import RedisUnavailable
from tests.conftest import Service
from tests.invoices.conftest import GRACE, TYPE, Months

CENT_EACH = {"usage_type": TYPE, "model": "per_unit", "unit_amount": "0.01"}


async def ready(service: Service) -> tuple[int, str, str]:
    async with service.http.get(f"{service.url}/readyz") as response:
        said = await response.json()
        return response.status, said["status"], " ".join(said.get("reasons", []))


async def metric(service: Service, name: str) -> float | None:
    async with service.http.get(f"{service.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return next((float(one.split()[-1]) for one in lines if one.startswith(f"{name} ")), None)


async def warnings(service: Service) -> str:
    found = [one async for one in doctor.examine(service.settings)]
    return " ".join(one.line for one in found if one.level == "warning")


async def test_what_was_issued_is_counted_by_currency_and_never_falls(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    await months.use("ada", 150)
    await months.end_of_period("ada")
    await months.create("ben", "basic")  # over nothing: not issued
    await ready(months.service)
    assert await metric(months.service, 'billing_revenue_total{currency="USD"}') == 99.5
    [first, *_] = await months.invoices()
    await months.service.post(
        f"/invoices/{first.invoice_id}/void", {"reason": "x"}, headers=months.service.token("admin")
    )
    await ready(months.service)
    assert await metric(months.service, 'billing_revenue_total{currency="USD"}') == 99.5
    assert str(await months.sql.fetchval("SELECT total FROM issued_totals")) == "99.500000"


async def test_a_parked_invoice_is_told_of_until_it_is_decided(months: Months) -> None:
    await months.plan("vast", "2000000.00")
    await months.create("ada", "vast")
    status, said, reasons = await ready(months.service)
    assert (status, said) == (200, "degraded")
    assert "invoices are parked: 1" in reasons
    assert "invoices are parked: 1" in await warnings(months.service)
    assert await metric(months.service, "billing_invoices_parked") == 1
    assert await metric(months.service, 'billing_revenue_total{currency="USD"}') in (None, 99.5)
    [parked] = await months.invoices()
    path = f"/invoices/{parked.invoice_id}/issue"
    await months.service.post(path, headers=months.service.token("admin"))
    assert "parked" not in (await ready(months.service))[2]
    assert await metric(months.service, "billing_invoices_parked") == 0
    assert await metric(months.service, 'billing_revenue_total{currency="USD"}') == 2_000_000
    assert "parked" not in await warnings(months.service)


async def subscribed(months: Months, tier: str, users: list[str]) -> dict[str, UUID]:
    """Many at once: nothing of them is in Redis."""
    found = await store.plan(months.sql, tier)
    assert found is not None
    version, plan = found
    made = {}
    async with months.sql.transaction():
        for user in users:
            life = create(plan, version, start=months.now, now=months.now)
            made[user] = dev_uuid(f"{user}-subscription")
            await store.subscriptions.insert(
                months.sql, made[user], "user", dev_uuid(user), None, life, None,
                life.period(months.now), months.now,
            )  # fmt: skip
            await store.subscriptions.note(
                months.sql, made[user], "create", "test", months.now, months.now
            )
    return made


async def test_more_that_fail_than_a_look_takes_hold_up_nobody(
    months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycle, "BATCH", 4)
    await months.plan("pro", "49.00", CENT_EACH)
    broken = await subscribed(months, "pro", [f"broken-{number}" for number in range(6)])
    await months.advance(months.now + timedelta(minutes=1))
    await months.create("ada", "pro")
    roll = rollover.roll

    async def fails(db: Any, stored: Any, *rest: Any, **said: Any) -> list[int]:
        if stored.subscription_id in broken.values():
            raise ZeroDivisionError
        return await roll(db, stored, *rest, **said)

    monkeypatch.setattr(cycle, "roll", fails)
    # Theirs are due first, and of them alone there are more than one look takes.
    await months.sql.execute(
        "UPDATE subscriptions SET period_end = period_end - INTERVAL '1 hour'"
        " WHERE subscription_id = ANY($1)",
        list(broken.values()),
    )
    ada = await store.subscriptions.newest(months.sql, "user", dev_uuid("ada"), None)
    assert ada is not None and ada.period_end is not None
    months.now = ada.period_end + GRACE
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await months.cycle.run_once(months.now)
    assert {one["event"] for one in logs} >= {"not_billed"}
    ada = await store.subscriptions.newest(months.sql, "user", dev_uuid("ada"), None)
    assert ada is not None and ada.period_end is not None and ada.period_end > months.now
    _, said, reasons = await ready(months.service)
    assert said == "degraded"
    assert "subscriptions cannot be billed: 6 (ZeroDivisionError)" in reasons
    assert "subscriptions cannot be billed: 6" in await warnings(months.service)
    assert await metric(months.service, "billing_subscriptions_not_billed") == 6
    monkeypatch.setattr(cycle, "roll", roll)
    await months.sql.execute("UPDATE billing_failures SET retry_at = NOW()")
    await months.advance(months.now)
    while await months.sql.fetchval("SELECT COUNT(*) FROM billing_failures"):
        await months.cycle.run_once(months.now)
    assert "cannot be billed" not in (await ready(months.service))[2]


async def test_one_that_takes_too_long_holds_up_nobody(months: Months) -> None:
    await months.plan("pro", "49.00", CENT_EACH)
    ada, ben = [(await months.create(user, "pro")).subscription for user in ("ada", "ben")]
    await months.sql.execute(
        "CREATE FUNCTION hang() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN"
        f" IF NEW.subscription_id = '{ada.subscription_id}' THEN PERFORM pg_sleep(60); END IF;"
        " RETURN NEW; END $$;"
        "CREATE TRIGGER hang BEFORE INSERT ON invoices FOR EACH ROW EXECUTE FUNCTION hang();"
        "SET statement_timeout = 1000"
    )
    assert ada.period_end is not None
    await months.advance(ada.period_end + GRACE)
    issued = [one.subscription_id for one in await months.invoices()]
    assert (issued.count(ada.subscription_id), issued.count(ben.subscription_id)) == (1, 2)
    failures = await store.billing_state.failures(months.sql)
    assert (failures.subscriptions, failures.reasons) == (1, ["QueryCanceledError"])
    await months.sql.execute(
        "DROP FUNCTION hang CASCADE; SET statement_timeout = 10000;"
        "UPDATE billing_failures SET retry_at = NOW()"
    )
    await months.settle()
    assert len(await months.invoices()) == 4


async def test_each_failure_doubles_the_time_until_the_next_attempt(months: Months) -> None:
    await months.plan("pro", "49.00")
    made = (await months.create("ada", "pro")).subscription.subscription_id
    waits = []
    for _ in range(12):
        async with months.sql.transaction():
            await store.billing_state.failed(months.sql, made, "X")
            wait = "SELECT EXTRACT(EPOCH FROM retry_at - NOW())::INTEGER FROM billing_failures"
            waits.append(await months.sql.fetchval(wait))
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024]
    assert (await store.billing_state.failures(months.sql)).reasons == ["X"]
    await store.billing_state.mended(months.sql, made)
    assert (await store.billing_state.failures(months.sql)).subscriptions == 0


async def test_a_change_that_does_not_reach_redis_is_told_of(
    months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    await months.plan("pro", "49.00")
    await months.create("ada", "pro")
    late = await store.outbox.insert(months.sql, supersede.TOPIC, "{}")
    await months.sql.execute(
        "UPDATE outbox SET created_at = NOW() - INTERVAL '6 minutes', last_error = 'Fenced',"
        " next_attempt_at = NOW() + INTERVAL '1 hour' WHERE outbox_id = $1",
        late,
    )
    with structlog.testing.capture_logs() as logs:
        await months.cycle._superseder.run_once(months.sql)
    [line] = [one for one in logs if one["event"] == "outbox_overdue"]
    assert (line["log_level"], line["rows"], line["reason"]) == ("error", 1, "Fenced")
    assert line["oldest_s"] >= 360
    _, said, reasons = await ready(months.service)
    assert said == "degraded"
    assert "changes of terms wait to be drained for 6 minutes (Fenced)" in reasons
    assert "changes of terms wait" in await warnings(months.service)
    age = await metric(months.service, "billing_outbox_age_seconds")
    assert age is not None and age >= 360
    await months.sql.execute("DELETE FROM outbox WHERE outbox_id = $1", late)
    with structlog.testing.capture_logs() as logs:
        await months.cycle._superseder.run_once(months.sql)
    assert not [one for one in logs if one["event"] == "outbox_overdue"]


async def test_why_redis_was_not_reached_is_kept(
    months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise RedisUnavailable("away", outcome_unknown=False)

    monkeypatch.setattr(supersede.Superseder, "_say", away)
    await months.plan("pro", "49.00")
    address = months.address("ada", None)
    await months.subscriptions.create(address, "pro", actor="test", now=months.now)
    assert (await store.outbox.overdue(months.sql, 0)).reason == "RedisUnavailable"
    monkeypatch.undo()
    await months.sql.execute("UPDATE outbox SET next_attempt_at = NOW() WHERE done_at IS NULL")
    await months.cycle._superseder.run_once(months.sql)
    await months.settle()
    assert (await store.outbox.overdue(months.sql, 0)).rows == 0


@pytest.mark.parametrize("most", [cycle.MOST_PERIODS, 10_000])
async def test_years_end_in_steps_with_the_same_invoices(
    months: Months, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    steps = []

    async def counted(*given: Any, **said: Any) -> list[int]:
        owed = await rollover.roll(*given, **said)
        steps.append(len(owed))
        return owed

    monkeypatch.setattr(cycle, "roll", counted)
    monkeypatch.setattr(cycle, "MOST_PERIODS", most)
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("ada", "pro")
    await months.use("ada", 150)
    await months.advance(months.now + timedelta(days=365 * 3 + 2))  # with a leap day and the grace
    assert steps == ([12, 12, 12] if most == 12 else [36])
    invoices = await months.invoices()
    assert [one.period_start for one in invoices[2:]] == [one.period_end for one in invoices[1:-1]]
    assert [f"{one.total:.2f}" for one in invoices] == ["49.00", "50.50"] + ["49.00"] * 35


async def test_the_list_of_subscriptions_is_read_by_its_index(service: Service) -> None:
    await service.sql.execute("SET enable_seqscan = off")
    rows = await service.sql.fetch(
        f"EXPLAIN (FORMAT TEXT) {store.QUERIES['list_subscriptions']}",
        None, None, None, None, 50,
    )  # fmt: skip
    plan = "\n".join(row[0] for row in rows)
    assert "subscriptions_newest" in plan
    assert "Sort" not in plan
