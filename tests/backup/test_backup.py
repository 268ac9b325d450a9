"""A backup is whole, private and of one instant, or it is not there; the reason is one line."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from gateway import binaries
from gateway.backup import key as keys
from gateway.backup import programs
from ledger import db, store
from ledger.settings import SettingError
from tests.backup.conftest import Operator
from tests.dev.processes import command, environment

PRESENT = 4096  # more bytes than the header, fewer than the dump


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{'ab' * 32}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder for archives, so that everything that is left behind shows."""
    folder = tmp_path / "archives"
    folder.mkdir()
    yield folder


async def test_a_backup_is_private_and_named_after_its_time(
    operator: Operator, elsewhere: Path
) -> None:
    said = await operator.told("backup", "--to", elsewhere)
    [file] = elsewhere.iterdir()
    assert said["file"] == str(file)
    assert file.name.startswith("billing-20") and file.name.endswith("Z.backup")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    manifest = said["manifest"]
    assert manifest["rows"]["usage_records"] == 2
    assert manifest["schema"][0] == "0001_ledger.sql"
    assert [one["partition"] for one in manifest["cursors"]] == [0, 1, 2, 3]
    assert [one["drained"] for one in manifest["cursors"] if one["drained"]] == [2]


async def test_nothing_in_it_can_be_read_without_the_key(operator: Operator) -> None:
    await operator.done("backup", "--to", operator.archive)
    raw = operator.archive.read_bytes()
    content = raw[raw.index(b"}}") :]  # after the manifest
    assert b"PGDMP" not in content and b"usage_records" not in content


async def test_what_is_written_meanwhile_is_not_in_it(operator: Operator) -> None:
    """pg_dump sees what the manifest counted, although rows come and go in between."""
    busy = await asyncpg.connect(operator.url)
    running = True

    async def write() -> None:
        while running:
            await busy.execute(
                "INSERT INTO audit_events (event_type, actor, occurred_at) VALUES ('x', 'y', NOW())"
            )

    writing = asyncio.create_task(write())
    try:
        await operator.done("backup", "--to", operator.archive)
    finally:
        running = False
        await writing
        await busy.close()
    # Restoring compares every count.
    assert "restored" in await operator.done("restore", operator.archive, "--replace")


async def test_an_older_file_is_never_written_over(operator: Operator) -> None:
    operator.archive.write_text("precious")
    said = await operator.refused("backup", "--to", operator.archive, exit_code=2)
    assert said == f"{operator.archive} exists already; name another file"
    assert operator.archive.read_text() == "precious"


async def test_what_an_interrupted_backup_left_is_written_over(
    operator: Operator, elsewhere: Path
) -> None:
    (elsewhere / "a.part").write_bytes(b"x" * 10_000_000)
    await operator.done("backup", "--to", elsewhere / "a")
    assert [one.name for one in elsewhere.iterdir()] == ["a"]
    await operator.done("backup", "--verify", elsewhere / "a")


async def test_a_full_disk_leaves_nothing_behind(operator: Operator, elsewhere: Path) -> None:
    environ = environment(operator.data_dir, DATABASE_URL=operator.url)
    answer = await asyncio.to_thread(
        subprocess.run,
        command("backup", "--to", str(elsewhere / "a")),
        env=environ,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (PRESENT, PRESENT)),
    )
    assert answer.returncode == 1
    assert answer.stderr == f"billing: {elsewhere / 'a'} cannot be written: File too large\n"
    assert list(elsewhere.iterdir()) == []


async def test_one_that_is_told_to_stop_leaves_nothing_behind(
    operator: Operator, elsewhere: Path
) -> None:
    """It waits for a table that somebody has locked."""
    locking = await asyncpg.connect(operator.url)
    environ = environment(operator.data_dir, DATABASE_URL=operator.url)
    try:
        await locking.execute("BEGIN; LOCK TABLE usage_keys IN ACCESS EXCLUSIVE MODE")
        words = command("backup", "--to", str(elsewhere / "a"))
        with subprocess.Popen(  # noqa: ASYNC220
            words, env=environ, stderr=subprocess.PIPE, text=True
        ) as process:
            waiting = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted"
            async with asyncio.timeout(30):
                while await locking.fetchval(waiting) == 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert [one.name for one in elsewhere.iterdir()] == ["a.part"]
            process.terminate()
            _, said = process.communicate(timeout=30)
    finally:
        await locking.close()
    assert (process.returncode, said) == (130, "")
    assert list(elsewhere.iterdir()) == []


async def test_two_do_not_write_the_same_file(operator: Operator, elsewhere: Path) -> None:
    with (elsewhere / "a.part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        said = await operator.refused("backup", "--to", elsewhere / "a")
    assert said == f"another backup is being written to {elsewhere / 'a'}"


async def test_its_transaction_may_wait_for_the_dump_as_long_as_that_takes(
    connection: db.Connection,
) -> None:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await store.export_snapshot(connection)
        assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") == "0"
    assert await connection.fetchval("SHOW idle_in_transaction_session_timeout") != "0"


async def test_a_dump_that_fails_leaves_nothing_behind(operator: Operator, elsewhere: Path) -> None:
    """As a role that may read, but from which row level security hides rows of one table."""
    reader = f"reader_of_{operator.database}"
    await operator.sql(f"CREATE ROLE {reader} LOGIN PASSWORD 'not-to-be-said'")
    await operator.sql(f"GRANT pg_read_all_data TO {reader}")
    await operator.sql("ALTER TABLE usage_types ENABLE ROW LEVEL SECURITY")
    server = operator.url.rpartition("@")[2]
    operator.url = f"postgresql://{reader}:not-to-be-said@{server}"
    said = await operator.refused("backup", "--to", elsewhere / "a")
    assert said.startswith("pg_dump failed: ") and "row-level security" in said
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "exit_code", "line"),
    [
        ("", 2, "DATABASE_URL: is not set"),
        ("postgresql://billing:hidden@127.0.0.1:1/billing", 1, "no connection to Postgres"),
    ],
)
async def test_without_a_database_it_says_so(
    operator: Operator, elsewhere: Path, url: str, exit_code: int, line: str
) -> None:
    operator.url = url
    said = await operator.refused("backup", "--to", elsewhere / "a", exit_code=exit_code)
    assert said.startswith(line) and "hidden" not in said
    assert list(elsewhere.iterdir()) == []


async def test_a_role_that_may_only_read_is_enough(operator: Operator) -> None:
    reader = f"only_reader_of_{operator.database}"
    await operator.sql(f"CREATE ROLE {reader} LOGIN PASSWORD 'not-to-be-said'")
    await operator.sql(f"GRANT pg_read_all_data TO {reader}")
    owner, server = operator.url, operator.url.rpartition("@")[2]
    operator.url = f"postgresql://{reader}:not-to-be-said@{server}"
    await operator.done("backup", "--to", operator.archive)
    operator.url = owner
    await operator.done("restore", operator.archive, "--replace")


async def test_a_database_without_a_ledger_is_no_backup(operator: Operator) -> None:
    operator.url = operator.url.rpartition("/")[0] + "/postgres"
    said = await operator.refused("backup", "--to", operator.archive)
    assert said == "the database holds no ledger; is DATABASE_URL right?"


async def test_programs_of_another_version_are_not_used(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the embedded server's, and with an older one on the path."""
    for name in ("pg_dump", "pg_restore"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) 14.9'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(binaries, "_package", lambda name: None)
    monkeypatch.setattr(binaries, "_SYSTEM_POSTGRES", tmp_path)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    major = (await operator.sql("SELECT current_setting('server_version_num')::INT / 10000"))[0]
    said = await operator.refused("backup", "--to", operator.archive, exit_code=2, **path)
    assert said == (
        f"the server is Postgres {major}, and its pg_dump and pg_restore are not installed: "
        f"apt-get install postgresql-client-{major}"
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://who:s%40cret@host:1/db?sslmode=require",
        "postgresql://who@host:1/db?sslmode=require&password=s%40cret",
    ],
)
def test_the_password_is_not_on_a_command_line(url: str, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\necho "$PGPASSWORD $SECRET $@"\n')
    program.chmod(0o755)
    environ = {"PATH": os.environ["PATH"], "SECRET": "of the service"}
    with programs.running(program, ["--option"], url, environ, reads=False) as started:
        said = started.stdout.read().decode()
    database = "postgresql://who@host:1/db?sslmode=require"
    assert said == f"s@cret  --option --dbname={database} --no-password\n"


async def test_the_key_of_a_dev_environment_is_made_once(tmp_path: Path) -> None:
    path = keys.dev_key_file(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.backup_key(keys.dev_key_file(tmp_path)) == bytes.fromhex(path.read_text())


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_key_file_is_read(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    assert keys.backup_key(key_file) == b"\xab" * 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_file_that_others_may_read_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(SettingError, match=rf"BACKUP_KEY_FILE: .*\(mode {mode:04o}\): chmod 600"):
        keys.backup_key(key_file)


@pytest.mark.parametrize(("mode", "allowed"), [(0o440, True), (0o640, True), (0o644, False)])
def test_roots_file_may_be_read_by_the_group_of_who_is_not_root(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, mode: int, allowed: bool
) -> None:
    key_file.chmod(mode)
    real = os.fstat
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result([*real(fd)[:4], 0, *real(fd)[5:10]]))
    if allowed:
        assert keys.backup_key(key_file)
    else:
        with pytest.raises(SettingError):
            keys.backup_key(key_file)


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "zz" * 32, "ab " * 21 + "a"])
def test_a_file_without_a_key_is_refused_without_showing_it(key_file: Path, text: str) -> None:
    key_file.write_text(text)
    with pytest.raises(
        SettingError, match="64 hexadecimal digits: openssl rand -hex 32"
    ) as refused:
        keys.backup_key(key_file)
    assert not text or text not in str(refused.value)


async def test_key_files_are_named_on_the_command_line(operator: Operator, key_file: Path) -> None:
    await operator.done("backup", "--to", operator.archive, BACKUP_KEY_FILE=str(key_file))
    await operator.done("backup", "--verify", operator.archive, BACKUP_KEY_FILE=str(key_file))
    said = await operator.refused("backup", "--verify", operator.archive, exit_code=2)
    assert "BACKUP_KEY_FILE holds" in said and "ab" * 8 not in said
    key_file.chmod(0o644)
    wide = {"exit_code": 2, "BACKUP_KEY_FILE": str(key_file)}
    said = await operator.refused("backup", "--verify", operator.archive, **wide)  # type: ignore[arg-type]
    assert said.startswith(f"BACKUP_KEY_FILE: {key_file} may be read by others")
    production = {"exit_code": 2, "BILLING_ENV": "production"}
    said = await operator.refused("backup", "--verify", operator.archive, **production)  # type: ignore[arg-type]
    assert said.startswith("BACKUP_KEY_FILE: is required")
    key_file.chmod(0o600)
    given = {"BILLING_ENV": "production", "BACKUP_KEY_FILE": str(key_file)}
    await operator.done("restore", operator.archive, "--replace", **given)
