"""A month goes once nobody needs it, archived, and everything that is left still agrees."""

from __future__ import annotations

import asyncio
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from gateway.backup.problem import BackupProblem
from gateway.export import manifest, month
from ledger import db, retention, store
from ledger.domain.ids import dev_uuid
from ledger.retention import Kept
from tests.backup.conftest import Operator
from tests.ledger.crashes import Crash, CrashingConnection, Tripwire
from tests.retention.conftest import FEBRUARY, JANUARY, KEY, LONG_AFTER, Past

DAY = timedelta(days=1)
SEVEN, TEN = datetime(2017, 2, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC)


async def purge(past: Past, folder: Path, now: datetime = LONG_AFTER) -> retention.Archived:
    return await month.purge(past.sql, JANUARY, folder, KEY, actor="olga", now=now)


async def reasons(past: Past, now: datetime) -> set[str]:
    return {one.reason for one in await retention.kept(past.sql, JANUARY, now)}


async def test_a_month_goes_the_day_after_the_last_reason_to_keep_it(past: Past) -> None:
    """One ledger for all: nothing is purged here."""
    assert await reasons(past, SEVEN - DAY) == {"retained"}
    assert await reasons(past, SEVEN + DAY) == set()
    await past.describe("clinic", "medicare_advantage")
    recorded = datetime(2010, 1, 5, tzinfo=UTC)
    assert await reasons(past, recorded.replace(year=2019) + 364 * DAY) == {"retained"}
    assert await reasons(past, TEN - DAY) == {"retained"}
    assert await reasons(past, TEN + DAY) == set()
    await past.describe("clinic", hold="matter 7")
    [found] = await retention.kept(past.sql, JANUARY, LONG_AFTER)
    assert (found.organization_id, found.reason) == (dev_uuid("clinic"), "legal_hold")
    await past.describe("clinic")
    assert await reasons(past, LONG_AFTER) == set()
    await past.sql.execute(
        "INSERT INTO dead_letters (partition, stream_id, entry, reason)"
        " VALUES (0, '1262649600000-0', '{}', 'x')"
    )
    assert await reasons(past, LONG_AFTER) == {"unsettled"}
    await past.sql.execute("UPDATE dead_letters SET status = 'discarded'")
    assert await reasons(past, LONG_AFTER) == set()


async def test_what_is_left_agrees_and_the_archive_has_the_rest(past: Past, tmp_path: Path) -> None:
    assert await past.found() == []
    usage_id = await past.sql.fetchval("SELECT usage_id FROM usage_records WHERE position = 1")
    done = await purge(past, tmp_path)
    assert await past.months() == ["2010-02 3"]
    assert await past.found() == []
    folder = tmp_path / "usage-2010-01"
    assert {stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()} == {0o600}
    said = manifest.verify(folder, KEY)
    assert [(one.records, one.sums) for one in said.files] == [(4, {"api_calls": "14"})]
    assert b"api_calls" not in (folder / "month.jsonl.sealed").read_bytes()
    [event] = await past.sql.fetch("SELECT * FROM audit_events WHERE event_type = 'usage_purged'")
    details = msgspec.json.decode(event["details"])
    assert (event["actor"], details["archive"], details["sha256"]) == (
        "olga", "usage-2010-01", done.sha256,
    )  # fmt: skip
    # The next month goes as well: nothing is left then, and that agrees too.
    await month.purge(past.sql, FEBRUARY, tmp_path, KEY, actor="olga", now=LONG_AFTER)
    assert (await past.months(), await past.found()) == ([], [])
    # A unit counts once for ever, its record purged or not.
    await past.repeat(usage_id)
    await past.drained()
    assert await past.months() == []
    assert await past.sql.fetchval("SELECT COUNT(*) FROM usage_refunds") == 1


TAMPERING = (
    (
        "UPDATE usage_records SET quantity = 9 WHERE position = 4",
        "is not the record that was sealed",
    ),
    ("DELETE FROM usage_records WHERE position = 4", "does not cover as many records"),
    ("DELETE FROM usage_records WHERE position = 7", "usage:0 7: the record is missing"),
    ("UPDATE audit_seals SET kept = 0, kept_head = NULL WHERE kept > 0", "records are gone"),
    ("DELETE FROM audit_seals WHERE first_position = 1", "no seal covers this place"),
    ("DELETE FROM purged_usage", "the total says"),
    ("UPDATE purged_usage SET quantity = quantity + 1", "the total says"),
    ("DELETE FROM purged_usage; DELETE FROM purges", "counts, but is no row"),
)


async def test_tampering_with_what_a_purge_left_is_found(past: Past, tmp_path: Path) -> None:
    """One purge for all: each damage is taken back before the next."""
    await purge(past, tmp_path)
    for statement, words in TAMPERING:
        transaction = past.sql.transaction(isolation="repeatable_read")
        await transaction.start()
        try:
            await past.sql.execute(statement)
            found = await past.found()
        finally:
            await transaction.rollback()
        assert any(words in one for one in found), (statement, found)


async def test_a_month_that_is_not_as_it_was_sealed_or_archived_or_looked_at_stays(
    past: Past, tmp_path: Path
) -> None:
    await past.sql.execute("UPDATE usage_records SET quantity = 9 WHERE position = 1")
    with pytest.raises(BackupProblem, match="tampered with"):
        await purge(past, tmp_path)
    assert list(tmp_path.iterdir()) == []
    await past.sql.execute("UPDATE usage_records SET quantity = 3 WHERE position = 1")
    # A hold that is put while the archive is written.
    path = tmp_path / "usage-2010-01"
    archived = await month.archive(past.sql, JANUARY, path, KEY, LONG_AFTER)
    await past.describe("clinic", hold="matter 7")
    with pytest.raises(Kept):
        await retention.purge(past.sql, JANUARY, archived, actor="olga", now=LONG_AFTER)
    await past.describe("clinic")
    # A record that comes after it.
    await past.record(datetime(2010, 1, 31, tzinfo=UTC))
    await past.drained()
    with pytest.raises(BackupProblem, match="does not hold what the ledger has"):
        await purge(past, tmp_path)
    assert await past.months() == ["2010-01 5", "2010-02 3"]
    # With the archive moved away, and half of one left by a process that was killed.
    path.rename(tmp_path / "moved")
    draft = tmp_path / "usage-2010-01.part"
    draft.mkdir()
    (draft / "month.jsonl.sealed").write_bytes(b"half")
    await purge(past, tmp_path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["moved", "usage-2010-01"]
    assert await past.months() == ["2010-02 3"]


async def test_a_purge_killed_at_any_await_is_finished_by_the_next(
    past: Past, tmp_path: Path, database_url: str
) -> None:
    places: list[str] = []
    while True:
        wire = Tripwire(len(places))
        dying = await db.connect(database_url)
        failing = cast(Any, CrashingConnection(dying, wire))
        with suppress(Crash):
            await month.purge(failing, JANUARY, tmp_path, KEY, actor="olga", now=LONG_AFTER)
        await dying.close()  # as its server does once the process is gone
        places.append(wire.name)
        purged = await past.sql.fetchval("SELECT COUNT(*) FROM purges")
        assert await past.months() == (["2010-02 3"] if purged else ["2010-01 4", "2010-02 3"])
        if purged:
            break
    assert len(places) > 20 and places[-1] == "after commit"
    assert await past.found() == []
    assert [one.name for one in tmp_path.iterdir()] == ["usage-2010-01"]
    manifest.verify(tmp_path / "usage-2010-01", KEY)


async def test_the_command_purges_whole_months_and_says_where_they_are(
    past: Past, operator: Operator
) -> None:
    shown = await operator.done("purge", "--before", "2010-03", "--dry-run")
    assert shown.splitlines() == [
        "2010-01: 4 records, may be purged", "2010-02: 3 records, may be purged",
        "nothing was changed",
    ]  # fmt: skip
    assert len(await past.months()) == 2
    said = await operator.done("purge", "--before", "2010-02")
    folder = operator.data_dir / "purged" / "usage-2010-01"
    assert said == f"2010-01: 4 records purged; {folder}\n"
    assert "is whole" in await operator.done("export", "--verify", folder)
    assert await past.months() == ["2010-02 3"]
    assert (
        await operator.done("purge", "--before", "2010-02") == "there is nothing before 2010-02\n"
    )
    # What cannot be used is one line, and nothing is changed.
    for words, said in (
        (["purge", "--before", "2010-03", "--to", folder / "none"], "cannot be written"),
        (["export", "clinic"], "export needs --out FOLDER"),
        (["export", "--verify", folder / "none"], "cannot be read"),
        (["export", "--open", folder], "export needs --out FOLDER"),
    ):
        assert said in await operator.refused(*words, exit_code=2)
    assert await past.months() == ["2010-02 3"]


async def test_a_refusal_names_the_organization_and_the_day_and_is_audited(
    past: Past, operator: Operator
) -> None:
    await past.describe("clinic", hold="matter 7")
    recent = datetime.now(UTC).replace(day=1) - timedelta(days=200)
    await past.record(recent)
    await past.drained()
    said = await operator.refused("purge", "--before", "2010-02")
    assert said == (
        f"2010-01 is kept by organization {dev_uuid('clinic')}: a legal hold. Nothing was purged"
    )
    await past.describe("clinic")
    after = (recent.replace(day=1) + timedelta(days=31)).replace(day=1)
    said = await operator.refused("purge", "--before", f"{after:%Y-%m}")
    assert f"{recent:%Y-%m} is kept by no organization: its retention class, until " in said
    assert f"until {after.year + 7}-{after:%m}-01" in said
    assert "2010-01 4" in await past.months()  # all or nothing
    events = "SELECT COUNT(*) FROM audit_events WHERE event_type = 'usage_purge_refused'"
    assert await past.sql.fetchval(events) == 2


async def test_two_purges_at_once_have_one_effect(
    past: Past, operator: Operator, database_url: str, tmp_path: Path
) -> None:
    other = await db.connect(database_url)
    try:
        assert await store.retention.hold_purge(other)
        said = await operator.refused("purge", "--before", "2010-02")
        assert said == "another purge is running; wait for it"
        # While one looks what keeps a month, neither that nor the month changes.
        await other.execute("SET lock_timeout = '50ms'")
        async with past.sql.transaction():
            await store.retention.hold_month(past.sql, JANUARY)
            await store.retention.hold_what_keeps(past.sql)
            for statement in (
                "UPDATE organizations SET legal_hold = TRUE, legal_hold_reason = 'x'",
                "DELETE FROM usage_corrections",
                "DELETE FROM usage_records_2010_01",
            ):
                with pytest.raises(db.LockNotAvailable):
                    await other.execute(statement)
        await other.execute("RESET lock_timeout")
        # Even without that lock.
        both = await asyncio.gather(
            *(
                month.purge(sql, JANUARY, tmp_path, KEY, actor="olga", now=LONG_AFTER)
                for sql in (past.sql, other)
            ),
            return_exceptions=True,
        )
    finally:
        await other.close()
    assert [isinstance(one, retention.Archived) for one in both].count(True) == 1
    assert await past.sql.fetchval("SELECT COUNT(*) FROM purges") == 1
    assert await past.found() == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["purge"], "--before"),
        (["purge", "--before", "2010"], "must be a month"),
        (["purge", "--before", "2010-13"], "must be a month"),
        (["purge", "--before", "0000-01"], "must be a month"),
        (["export"], "is required"),
        (["export", "clinic", "--verify", "x"], "not allowed with"),
    ],
)
def test_wrong_options_are_named(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from gateway import cli

    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
