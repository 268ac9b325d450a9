"""A restored database is the one that was backed up, and nothing is half restored."""

from __future__ import annotations

import io
from pathlib import Path

import asyncpg
import msgspec
import pytest

from gateway.backup.archive import Archive, write
from gateway.backup.key import backup_key
from tests.backup.conftest import Operator

RECORDED = "SELECT SUM(quantity)::INT FROM usage_records"


async def test_what_was_lost_is_back_and_what_was_there_is_kept(
    operator: Operator, archive: Path
) -> None:
    await operator.sql("DELETE FROM usage_records")
    done = await operator.told("restore", archive, "--replace")
    assert await operator.sql(RECORDED) == [6]
    assert (done["sealed"], done["migrated"]) == (2, 0)
    assert done["manifest"]["rows"]["usage_records"] == 2
    assert await operator.sql(RECORDED, database=done["former"]) == [None]
    assert await operator.databases() == [operator.database, done["former"]]


async def test_it_says_in_the_ledger_that_it_was_restored_and_from_when(
    operator: Operator, archive: Path
) -> None:
    said = await operator.told("backup", "--verify", archive)
    await operator.done("restore", archive, "--replace")
    [text] = await operator.sql(
        "SELECT details::TEXT FROM audit_events WHERE event_type = 'ledger_restored'"
    )
    details = msgspec.json.decode(str(text))
    assert details["backup_created_at"][:19] == said["manifest"]["created_at"][:19]
    cursors = await operator.sql("SELECT last_id FROM stream_cursor ORDER BY partition")
    assert list(details["cursors"].values()) == cursors
    assert set(cursors) > {"0-0"}


@pytest.mark.parametrize("first", ["CREATE DATABASE {}", "SELECT 1"], ids=["empty", "gone"])
async def test_a_new_server_needs_no_replace(operator: Operator, archive: Path, first: str) -> None:
    await operator.sql(f"DROP DATABASE {operator.database}", database="postgres")
    await operator.sql(first.format(operator.database), database="postgres")
    said = await operator.done("restore", archive)
    assert "kept" not in said and "2 records sealed" in said
    assert await operator.databases() == [operator.database]
    assert await operator.sql(RECORDED) == [6]


async def test_terms_made_after_it_are_newer_than_any_from_before(
    operator: Operator, archive: Path
) -> None:
    await operator.done("restore", archive, "--replace")
    newest = await operator.sql("SELECT nextval('subscription_versions')")
    assert newest[0] > 1_000_000  # type: ignore[operator]


async def test_subscriptions_are_newer_than_what_redis_may_have_loaded(operator: Operator) -> None:
    await operator.sql(
        "INSERT INTO subscriptions (user_id, plan_tier, plan_version, status, anchor)"
        " VALUES (gen_random_uuid(), 'basic', 1, 'active', '2026-01-01')"
    )
    await operator.done("backup", "--to", operator.archive)
    change = "UPDATE subscriptions SET version = nextval('subscription_versions') RETURNING version"
    [loaded] = await operator.sql(change)
    await operator.done("restore", operator.archive, "--replace")
    [restored] = await operator.sql("SELECT version FROM subscriptions")
    assert restored > loaded  # type: ignore[operator]


async def test_a_database_that_is_not_empty_is_left_alone(
    operator: Operator, archive: Path
) -> None:
    said = await operator.refused("restore", archive)
    assert said.startswith(f"database {operator.database} is not empty; with --replace")
    assert await operator.databases() == [operator.database]


async def test_a_database_in_use_is_left_alone(operator: Operator, archive: Path) -> None:
    ledger = await asyncpg.connect(operator.url)
    try:
        said = await operator.refused("restore", archive, "--replace")
    finally:
        await ledger.close()
    assert said.startswith(
        f"database {operator.database} is in use (sessions: 1); stop the gateway"
    )
    assert await operator.databases() == [operator.database]


async def test_an_altered_or_cut_archive_is_refused_before_anything_else(
    operator: Operator, archive: Path
) -> None:
    whole = archive.read_bytes()
    half = len(whole) // 2
    for damaged in (whole[:half], whole[:half] + b"x" + whole[half + 1 :], whole + b"x"):
        archive.write_bytes(damaged)
        line = f"{archive} is damaged, altered or cut short; use another copy"
        # Without a server: it is read to its end before Postgres is asked for anything.
        nowhere = "postgresql://billing@127.0.0.1:1/billing"
        assert await operator.refused("restore", archive, DATABASE_URL=nowhere) == line
    assert await operator.refused("backup", "--verify", archive) == line


@pytest.mark.parametrize(("name", "why"), [("none", "No such file or directory"), ("", "Is a dir")])
async def test_a_file_that_cannot_be_read_is_named(
    operator: Operator, tmp_path: Path, name: str, why: str
) -> None:
    said = await operator.refused("restore", tmp_path / name, exit_code=2)
    assert said.startswith(f"{tmp_path / name} cannot be read: {why}")


async def test_a_file_that_is_no_archive_or_cannot_be_one_is_wrong_usage(
    operator: Operator, tmp_path: Path
) -> None:
    said = await operator.refused("backup", "--to", tmp_path / "none" / "a", exit_code=2)
    assert said == f"{tmp_path / 'none' / 'a'} cannot be written: No such file or directory"
    (tmp_path / "notes").write_text("not an archive")
    line = f"{tmp_path / 'notes'} is not a backup of this service"
    assert await operator.refused("backup", "--verify", tmp_path / "notes", exit_code=2) == line
    assert await operator.refused("restore", tmp_path / "notes", exit_code=2) == line


async def test_a_ledger_that_was_tampered_with_before_the_backup_does_not_come_back(
    operator: Operator,
) -> None:
    await operator.sql("UPDATE usage_records SET quantity = 1")
    await operator.done("backup", "--to", operator.archive)
    said = await operator.refused("restore", operator.archive, "--replace")
    assert said.startswith("the restored ledger was tampered with: usage:")
    assert await operator.databases() == [operator.database]


async def test_what_postgres_refuses_is_not_half_restored(operator: Operator) -> None:
    reader = f"reader_of_{operator.database}"
    await operator.sql(f"CREATE ROLE {reader}")
    await operator.sql(f"CREATE POLICY own ON usage_totals TO {reader} USING (TRUE)")
    await operator.done("backup", "--to", operator.archive)
    await operator.sql("DROP POLICY own ON usage_totals")
    await operator.sql(f"DROP ROLE {reader}")
    said = await operator.refused("restore", operator.archive, "--replace")
    assert said.startswith("pg_restore failed: ") and f'role "{reader}" does not exist' in said
    assert await operator.databases() == [operator.database]


async def test_a_grant_to_a_role_that_is_not_there_does_not_stop_a_restore(
    operator: Operator,
) -> None:
    reader = f"granted_in_{operator.database}"
    await operator.sql(f"CREATE ROLE {reader}")
    await operator.sql(f"GRANT SELECT ON usage_records TO {reader}")
    await operator.done("backup", "--to", operator.archive)
    await operator.sql(f"REVOKE ALL ON usage_records FROM {reader}")
    await operator.sql(f"DROP ROLE {reader}")
    await operator.done("restore", operator.archive, "--replace")


async def test_counts_that_are_not_those_of_the_backup_are_refused(operator: Operator) -> None:
    await rewritten(operator, rows={"usage_records": 3, "usage_keys": 2})
    said = await operator.refused("restore", operator.archive, "--replace")
    assert said == (
        "the restored database is not the one backed up: usage_records has 2 rows instead of 3"
    )
    assert await operator.databases() == [operator.database]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"postgres": 99}, "the archive is of Postgres 99, the server is"),
        ({"schema": ["0001_ledger.sql", "9999_x.sql"]}, "the archive has migration 9999_x.sql, "),
        ({"schema": 7}, "the archive was made by another version"),
    ],
    ids=["newer server", "newer schema", "other manifest"],
)
async def test_an_archive_of_a_newer_version_is_refused(
    operator: Operator, change: dict[str, object], line: str
) -> None:
    await rewritten(operator, **change)
    assert (await operator.refused("restore", operator.archive, "--replace")).startswith(line)
    assert await operator.databases() == [operator.database]


async def rewritten(operator: Operator, **change: object) -> None:
    """A backup whose manifest says otherwise."""
    await operator.done("backup", "--to", operator.archive)
    key = backup_key(operator.data_dir / "backup-key")
    with operator.archive.open("rb") as file:
        made = Archive(file, key)
        content = b"".join(made.chunks())
    said = msgspec.json.encode(msgspec.json.decode(made.manifest) | change)
    with operator.archive.open("wb") as file:
        write(file, key, said, io.BytesIO(content).read, lambda: None)
