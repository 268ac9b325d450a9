"""What of an organisation, its invoices and its users is told, exported and kept."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from gateway.export import month, organization
from ledger import retention
from ledger.domain.ids import dev_uuid
from ledger.domain.retention import month_after, years_after
from ledger.reconcile import Reconciler
from ledger.store import export
from ledger.store.export import Sums
from tests.backup.conftest import Operator
from tests.conftest import Service
from tests.invoices.conftest import TYPE, Months
from tests.invoices.test_corrections import correct, finished
from tests.invoices.test_cycle import CENT_EACH
from tests.retention.conftest import KEY

CLINIC = dev_uuid("clinic")


@pytest.fixture
async def invoiced(service: Service) -> Months:
    """An organisation with a month of usage, a correction and two invoices."""
    months = Months(service, park_above=1_000_000)
    await months.move(midnight(month_after(months.now.date()) + timedelta(days=9)))
    await months.plan("pro", "49.00", CENT_EACH)
    await months.create("boss", "pro", organization="clinic")
    original = await months.use("ada", 150, organization_id="clinic")
    await months.use("ben", 7, organization_id="clinic", metadata={"feature": "notes"})
    await months.use("carl", 1000)
    await months.service.drained()
    await correct(months, original, -50)
    await finished(months)
    await months.end_of_period("boss", "clinic")
    return months


def operator_of(months: Months) -> Operator:
    config = months.service.settings
    return Operator(config.database_url, config.data_dir)


def records(folder: Path, name: str) -> list[Any]:
    return [msgspec.json.decode(line) for line in (folder / name).read_bytes().splitlines()]


async def test_an_organization_is_exported_whole_and_sums_to_the_ledger(
    invoiced: Months, tmp_path: Path
) -> None:
    operator, folder = operator_of(invoiced), tmp_path / "books"
    said = await operator.told("export", "clinic", "--out", folder)
    files = {one["name"]: one for one in said["files"]}
    of_clinic = "FROM usage_records WHERE organization_id = $1"
    quantity = await invoiced.sql.fetchval(f"SELECT SUM(quantity) {of_clinic}", CLINIC)
    total = await invoiced.sql.fetchval(
        "SELECT SUM(total) FROM invoices WHERE organization_id = $1", CLINIC
    )
    usage = files["usage.jsonl"]
    assert Decimal(usage["sums"][TYPE]) == quantity == 107
    assert usage["records"] == 3
    assert Decimal(files["invoices.jsonl"]["sums"]["USD"]) == total > 0
    assert files["corrections.jsonl"]["sums"] == {TYPE: "-50"}
    assert files["subscriptions.jsonl"]["records"] > 0
    assert files["audit_events.jsonl"]["records"] > 0
    exported = records(folder, "usage.jsonl")
    assert [one["quantity"] for one in exported] == ["150", "7", "-50"]
    assert {one["user_id"] for one in exported} == {str(dev_uuid("ada")), str(dev_uuid("ben"))}
    [*_, invoice] = records(folder, "invoices.jsonl")
    assert [line["kind"] for line in invoice["lines"]] == ["base_fee", "usage"]
    assert "is whole" in await operator.done("export", "--verify", folder)
    # A line that is changed, taken out or added, and a file that is not part of it.
    path = folder / "usage.jsonl"
    whole = path.read_bytes()
    for damage, words in (
        (whole.replace(b'"150"', b'"151"'), "the sums differ"),
        (whole.partition(b"\n")[2], "2 records instead of 3"),
        (whole.replace(b"notes", b"nodes"), "the checksum differs"),
        (whole[:-1], "ends within a line"),
        (whole.replace(b"quantity", b"quality"), "is no record of an export"),
    ):
        path.write_bytes(damage)
        assert words in await operator.refused("export", "--verify", folder)
    path.write_bytes(whole)
    (folder / "more").write_bytes(b"")
    assert "is no file of this export" in await operator.refused("export", "--verify", folder)
    (folder / "more").unlink()
    again = await operator.refused("export", "clinic", "--out", folder / "usage.jsonl", exit_code=2)
    assert again.endswith("exists already; name another folder")
    said = await operator.refused("export", "nobody", "--out", tmp_path / "none")
    assert said == f"there is no organization {dev_uuid('nobody')}"
    assert not (tmp_path / "none").exists()


async def test_with_a_key_it_is_sealed_and_opened_with_the_same_key_alone(
    invoiced: Months, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, folder = operator_of(invoiced), tmp_path / "books"
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    key.chmod(0o600)
    await operator.done("export", "clinic", "--out", folder, BACKUP_KEY_FILE=str(key))
    assert b"api_calls" not in (folder / "usage.jsonl.sealed").read_bytes()
    assert "made with key" in await operator.refused("export", "--verify", folder, exit_code=2)
    given: Any = {"BACKUP_KEY_FILE": str(key)}
    await operator.done("export", "--open", folder, "--out", tmp_path / "plain", **given)
    assert len(records(tmp_path / "plain", "usage.jsonl")) == 3
    await operator.done("export", "--verify", tmp_path / "plain")
    (folder / "usage.jsonl.sealed").rename(tmp_path / "aside")
    (tmp_path / "aside").rename(folder / "month.jsonl.sealed")
    answer = await operator.refused("export", "--verify", folder, **given)
    assert answer.startswith(f"{folder / 'usage.jsonl.sealed'} cannot be read")
    # Of one instant, whatever is written meanwhile; and whole or not there.
    config = invoiced.service.settings
    write = organization._write

    async def and_meanwhile(*args: Any) -> None:
        await operator.sql(
            "UPDATE invoices SET total = total + 1",
            database=urlsplit(config.database_url).path[1:],
        )
        await write(*args)

    monkeypatch.setattr(organization, "_write", and_meanwhile)
    await operator.done("export", "clinic", "--out", tmp_path / "instant")

    async def half(*args: Any) -> None:
        await write(*args)
        raise asyncio.CancelledError

    async def fewer(*args: Any) -> Sums:
        return Sums(0, {})

    with monkeypatch.context() as patched:
        patched.setattr(export, "sums", fewer)
        answer = await operator.refused("export", "clinic", "--out", tmp_path / "half")
        assert "does not hold what the ledger does" in answer
    monkeypatch.setattr(organization, "_write", half)
    with pytest.raises(asyncio.CancelledError):
        await operator.run("export", "clinic", "--out", tmp_path / "half")
    assert not list(tmp_path.glob("half*"))


async def test_a_purged_line_says_where_its_records_are_and_all_still_agrees(
    invoiced: Months, tmp_path: Path
) -> None:
    months, service = invoiced, invoiced.service
    recorded = await months.sql.fetchval("SELECT MIN(recorded_at) FROM usage_records")
    first = recorded.date().replace(day=1)
    issued = await months.sql.fetchval("SELECT MAX(issued_at) FROM invoices")
    # By its invoice, not by the month: that was issued later.
    end = years_after(month_after(issued.date()), 7)
    assert end > years_after(month_after(first), 7)
    for day, kept in ((end - timedelta(days=1), True), (end, False)):
        found = await retention.kept(months.sql, first, midnight(day))
        assert bool([one for one in found if one.organization_id == CLINIC]) is kept
    done = await month.purge(months.sql, first, tmp_path, KEY, actor="olga", now=midnight(end))
    [line] = await months.sql.fetch("SELECT * FROM invoice_lines WHERE kind = 'usage'")
    path = f"/invoices/{line['invoice_id']}/lines/{line['line_id']}/usage"
    status, said, _ = await service.get(path, headers=service.token("finance"))
    purged = [{"month": f"{first:%Y-%m}", "archive": done.archive}]
    assert (status, said) == (200, {"data": [], "has_more": False, "purged": purged})
    reconciler = Reconciler(months.sql, service.servers, service.scripts, repair=False)
    report = await reconciler.whole(service.settings.partitions)
    assert report.findings == []
    # What is exported from now on says what it lacks.
    operator = operator_of(months)
    assert (await operator.told("export", "clinic", "--out", tmp_path / "x"))["purged"] == purged
    # What is left is corrected, unless some of its billing period may be gone.
    usage = await months.use("ada", 5, organization_id="clinic")
    await service.drained()
    path, finance = f"/usage/{usage}/corrections", service.token("finance")
    for key, answer in (("first", 201), ("second", 409)):
        asked = {"quantity": -1, "reason": "twice"}
        headers = {**finance, "Idempotency-Key": key}
        status, said, _ = await service.post(path, asked, headers=headers)
        assert status == answer, said
        await months.sql.execute(
            "INSERT INTO purges VALUES ($1, 0, 'x', 'x', 'test', NOW()) ON CONFLICT DO NOTHING",
            month_after(first),
        )
    assert said["detail"] == "records of its billing period have been purged"


async def test_books_are_open_from_exactly_ten_thousand(service: Service) -> None:
    months = Months(service, park_above=1_000_000)
    found = {}
    for name, fee in (("clinic", "10000.00"), ("practice", "9999.99")):
        await months.plan(name, fee)
        await months.create(f"boss of {name}", name, organization=name)
        path = f"/organizations/{name}"
        _, said, _ = await service.get(path, headers=service.token("finance"))
        found[name] = said["access_to_books_until"]
    until = await months.sql.fetchval("SELECT MAX(period_end) FROM invoice_lines")
    last = years_after(until.date(), 4)
    assert found == {"clinic": last.isoformat(), "practice": None}
    # While they are open nothing of it is purged, old as it may be; the day after, it may be.
    await months.use("ada", 1, organization_id="clinic")
    await service.drained()
    month_of = (await months.sql.fetchval("SELECT recorded_at FROM usage_records")).date()
    for day, is_reason in ((last, True), (last + timedelta(days=1), False)):
        kept = await retention.kept(months.sql, month_of.replace(day=1), midnight(day))
        assert ("access_to_books" in {one.reason for one in kept}) is is_reason


async def test_a_user_is_exported_under_a_pseudonym_and_records_stay(
    invoiced: Months, tmp_path: Path
) -> None:
    operator = operator_of(invoiced)
    redis: Any = {"REDIS_URL": invoiced.service.settings.redis_url}
    before = await invoiced.sql.fetch("SELECT * FROM usage_records ORDER BY usage_id")
    told = await operator.done("pseudonymise", "ben", **redis)
    pseudonym = told.split()[2]
    assert "1 memberships forgotten" in told
    assert pseudonym in await operator.done("pseudonymise", "ben", **redis)  # once for ever
    assert await invoiced.sql.fetch("SELECT * FROM usage_records ORDER BY usage_id") == before
    memberships = "SELECT COUNT(*) FROM organization_users WHERE user_id = $1"
    assert await invoiced.sql.fetchval(memberships, dev_uuid("ben")) == 0
    folder = tmp_path / "books"
    await operator.done("export", "clinic", "--out", folder)
    ben = [one for one in records(folder, "usage.jsonl") if one["quantity"] == "7"]
    assert [(one["user_id"], one["metadata"]) for one in ben] == [(pseudonym, None)]
    for file in folder.iterdir():
        assert str(dev_uuid("ben")) not in file.read_text()
    events = "SELECT user_id, details FROM audit_events WHERE event_type = 'user_pseudonymised'"
    [event] = await invoiced.sql.fetch(events)
    assert event["user_id"] is None and str(dev_uuid("ben")) not in event["details"]
    # One who goes on, and one that nobody knows.
    await invoiced.plan("own", "1.00")
    await invoiced.create("carl", "own")
    said = await operator.refused("pseudonymise", "carl", **redis)
    assert said == "the user has a subscription that goes on; end it first"
    said = await operator.refused("pseudonymise", "stranger", **redis)
    assert said == "nothing is known of that user"


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
