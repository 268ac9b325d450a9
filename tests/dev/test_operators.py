"""`./run dead-letters`, `accept-gap` and `adopt-redis` as a shell sees them."""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import msgspec
import pytest
import structlog

from gateway import cli
from ledger import store
from ledger.domain.ids import dev_uuid
from lua import keys
from lua.keys import Account, partition_of
from tests.conftest import Service
from tests.dev.processes import call, command, environment
from tests.flow.invariants import check

SECRET = "feature-nobody-may-see"


class Answer(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Shell:
    """Runs commands against a service, as the command line does."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    async def __call__(self, *words: str) -> Answer:
        self._capsys.readouterr()
        exit_code = await asyncio.to_thread(cli.main, words)
        return Answer(exit_code, *self._capsys.readouterr())


@pytest.fixture
def run(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    monkeypatch.setenv("BILLING_DATA_DIR", str(service.settings.data_dir))
    monkeypatch.setenv("DATABASE_URL", service.settings.database_url)
    monkeypatch.setenv("REDIS_URL", service.settings.redis_url)
    logging = structlog.get_config()  # commands are silent, and would leave us so
    yield Shell(capsys)
    structlog.configure(**logging)


@pytest.fixture
async def parked(service: Service) -> Service:
    """Three records that Postgres refused, and one that it did not."""
    await service.sql.execute(
        "ALTER TABLE usage_records ADD CONSTRAINT unforeseen CHECK (quantity <> 13)"
    )
    for quantity in (13, 13, 13, 5):
        body: dict[str, Any] = {"user_id": "ada", "usage_type": "api_calls", "quantity": quantity}
        assert (await service.post("/usage", {**body, "metadata": {"feature": SECRET}}))[0] == 201
    await service.drained()
    return service


async def test_open_letters_are_listed_without_what_the_caller_said(
    parked: Service, run: Shell
) -> None:
    shown = await run("dead-letters", "list")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.count("CheckViolation") == 3
    assert f"user:{dev_uuid('ada')}" in shown.stdout
    listed = await run("dead-letters", "list", "--json")
    rows = msgspec.json.decode(listed.stdout)
    assert [(row["id"], row["units"], row["status"]) for row in rows] == [
        (3, 13, "open"), (2, 13, "open"), (1, 13, "open")
    ]  # fmt: skip
    assert SECRET not in shown.stdout + listed.stdout


async def test_letters_are_retried_and_discarded_with_one_line_each(
    parked: Service, run: Shell
) -> None:
    still = await run("dead-letters", "retry", "1")
    assert (still.returncode, still.stdout) == (1, "")
    assert still.stderr.startswith("billing: dead letter 1 stays open: Postgres refuses it")
    assert still.stderr.count("\n") == 1
    let_go = await run("dead-letters", "discard", "2", "--reason", "ours", "--actor", "olga")
    assert (let_go.returncode, let_go.stderr) == (0, "")
    assert let_go.stdout == "dead letter 2: discarded; the quota has the units back\n"
    await parked.sql.execute("ALTER TABLE usage_records DROP CONSTRAINT unforeseen")
    retried = await run("dead-letters", "retry", "--all-open")
    assert (retried.returncode, retried.stderr) == (0, "")
    assert retried.stdout == "dead letter 1: recorded\ndead letter 3: recorded\n"
    await check(parked)
    actors = await parked.sql.fetch("SELECT event_type, actor FROM audit_events ORDER BY 1, 2")
    me = pwd.getpwuid(os.getuid()).pw_name
    assert [tuple(row) for row in actors] == [
        ("dead_letter_discarded", "olga"), *[("dead_letter_retried", me)] * 3
    ]  # fmt: skip
    assert (await run("dead-letters", "list")).stdout == "there are no open dead letters\n"
    everything = msgspec.json.decode((await run("dead-letters", "list", "--all", "--json")).stdout)
    assert [row["status"] for row in everything] == ["retried", "discarded", "retried"]


async def test_the_newest_letters_are_listed_first_and_no_more_of_them_than_asked_for(
    parked: Service, run: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("ledger.store.dead_letters"), "PAGE", 2)
    two = await run("dead-letters", "list", "--limit", "2")
    lines = two.stdout.splitlines()
    assert [line.split()[0] for line in lines if "CheckViolation" not in line] == [
        "3",
        "2",
        "there",
    ]
    assert lines[-1] == "there are older ones: --limit 20 shows more"
    all_three = await run("dead-letters", "list", "--limit", "3")
    assert "there are older ones" not in all_three.stdout
    assert all_three.stdout.count("CheckViolation") == 3
    listed = await run("dead-letters", "list", "--json")
    assert [row["id"] for row in msgspec.json.decode(listed.stdout)] == [3, 2, 1]
    listed = await run("dead-letters", "list", "--json", "--limit", "1")
    assert [row["id"] for row in msgspec.json.decode(listed.stdout)] == [3]
    await parked.sql.execute("DELETE FROM dead_letters")
    assert (await run("dead-letters", "list", "--json")).stdout == "[]\n"


async def test_a_reader_that_has_seen_enough_of_the_letters_is_no_failure(
    parked: Service,
) -> None:
    await parked.sql.execute(
        "INSERT INTO dead_letters (partition, stream_id, entry, reason)"
        " SELECT 0, n || '-9', '{}', repeat('x', 200) FROM generate_series(1, 2000) n"
    )
    config = parked.settings
    variables = {"DATABASE_URL": config.database_url, "REDIS_URL": config.redis_url}
    process = await asyncio.create_subprocess_exec(
        *command("dead-letters", "list", "--json"),
        env=environment(config.data_dir, **variables),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    assert await process.stdout.readexactly(1) == b"["
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
    said = await process.stderr.read()
    await process.wait()
    assert (process.returncode, said) == (0, b"")


async def test_a_letter_that_cannot_be_settled_does_not_hold_up_the_others(
    parked: Service, run: Shell
) -> None:
    answer = await run("dead-letters", "discard", "9", "1", "--reason", "ours")
    assert answer.returncode == 1
    assert answer.stderr == "billing: there is no dead letter 9\n"
    assert answer.stdout == "dead letter 1: discarded; the quota has the units back\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["dead-letters", "retry"], "ID --all-open is required"),
        (["dead-letters", "retry", "x"], "must be a whole number"),
        (["dead-letters", "discard", "1"], "--reason"),
        (["dead-letters", "discard", "1", "--reason", " "], "must be one line"),
        (["dead-letters", "discard", "1", "--reason", "a\nb"], "must be one line"),
        (["adopt-redis", "1", "--reason", "x" * 501], "must be one line"),
        (["accept-gap"], "PARTITION"),
        (["accept-gap", "-1"], "PARTITION"),
        (["recalculate", ""], "must be one line"),
        (["recalculate", "a\tb"], "must be one line"),
        (["recalculate", "ada", "--actor", ""], "must be one line"),
        (["reconcile", "everything"], "invalid choice"),
        (["dead-letters", "list", "--limit", "0"], "must be 1 or more"),
        (["dead-letters", "list", "--limit", "many"], "must be a whole number"),
    ],
)
def test_wrong_options_are_named(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "url", "says"),
    [
        ("DATABASE_URL", "postgresql://u:hush@127.0.0.1:1/d", "no answer from Postgres"),
        ("REDIS_URL", "redis://:hush@127.0.0.1:1", "no answer from Redis"),
    ],
)
async def test_a_server_out_of_reach_is_one_line(
    parked: Service, variable: str, url: str, says: str
) -> None:
    """As a process of its own: what it says must be all that comes out."""
    config = parked.settings
    variables = {"DATABASE_URL": config.database_url, "REDIS_URL": config.redis_url, variable: url}
    environ = environment(config.data_dir, **variables)
    answer = call("dead-letters", "discard", "1", "--reason", "ours", environ=environ)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith(f"billing: {says}")
    assert answer.stderr.count("\n") == 1
    assert "hush" not in answer.stderr


@pytest.mark.parametrize("command", ["accept-gap", "adopt-redis"])
async def test_of_partitions_of_which_one_does_not_exist_none_is_decided(
    service: Service, run: Shell, command: str
) -> None:
    await service.drained()
    for key in (keys.meta(0), keys.meta(99)):
        await service.redis.run("HSET", key, "replid", "f" * 40)
    answer = await run(command, "0", "99", "--reason", "x")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "billing: there is no partition 99, only 0 to 3\n"
    assert await service.sql.fetchval("SELECT COUNT(*) FROM audit_events") == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": "wrong"}, "Postgres refuses user or password of DATABASE_URL"),
        ({"path": "/nowhere"}, "the database named in DATABASE_URL does not exist"),
        ({"query": "sslmode=some"}, "DATABASE_URL has an option that cannot be used"),
        ({"port": 99999}, "DATABASE_URL: is not a URL"),
        ({"port": "x"}, "DATABASE_URL: is not a URL"),
    ],
)
@pytest.mark.parametrize(
    "words", [["dead-letters", "list"], ["migrate"], ["backup", "--to", "unwritten"]]
)
async def test_a_wrong_database_url_is_wrong_usage_whatever_the_command(
    service: Service,
    run: Shell,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    change: dict[str, Any],
    says: str,
) -> None:
    parts = urlsplit(service.settings.database_url)
    change = dict(change)  # the parameters are of every test
    password, port = change.pop("password", parts.password), change.pop("port", parts.port)
    netloc = f"{parts.username}:{password}@{parts.hostname}:{port}"
    monkeypatch.setenv("DATABASE_URL", urlunsplit(parts._replace(netloc=netloc, **change)))
    monkeypatch.chdir(service.settings.data_dir)
    answer = await run(*words)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(f"billing: {says}")
    assert answer.stderr.count("\n") == 1
    assert str(parts.password) not in answer.stderr


async def test_a_database_that_is_not_migrated_is_one_line(service: Service, run: Shell) -> None:
    await service.sql.execute("DELETE FROM schema_migrations WHERE number = 2")
    answer = await run("dead-letters", "list")
    assert answer.returncode == 2
    assert answer.stderr == ("billing: 0002_reconcile.sql is not applied; run ./run migrate\n")


async def test_a_gap_is_shown_and_only_accepted_with_a_reason(service: Service, run: Shell) -> None:
    partition = partition_of(Account(dev_uuid("ada")).who, service.settings.partitions)
    number, other = str(partition), str((partition + 1) % service.settings.partitions)
    body = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}
    for _ in range(3):
        await service.post("/usage", body)
    row = await store.cursor(service.sql, partition)
    await service.drained()
    drained = await store.cursor(service.sql, partition)
    # As if the database had been restored to before the three of them were drained.
    stream_id, replid = drained.last_id, drained.replid
    await service.scripts.trim(partition, replid=replid, drained=3, through=stream_id)
    await service.sql.execute(
        "UPDATE stream_cursor SET last_id = $1, drained = 0 WHERE partition = $2",
        row.last_id,
        partition,
    )
    shown = await run("accept-gap", number)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"the ledger ends at 0-0, Redis begins after {stream_id}: 3 entries" in shown.stdout
    assert shown.stdout.endswith("nothing was changed; --reason TEXT decides\n")
    assert (await store.cursor(service.sql, partition)).last_id == row.last_id
    both = await run("accept-gap", number, other, "--reason", "backup of noon")
    assert (both.returncode, both.stderr) == (1, f"billing: partition {other} has no gap\n")
    assert "accepted" in both.stdout
    assert (await store.cursor(service.sql, partition)).last_id == stream_id
    details = await service.sql.fetchval(
        "SELECT details FROM audit_events WHERE event_type = 'gap_accepted'"
    )
    assert msgspec.json.decode(details)["reason"] == "backup of noon"


async def test_another_history_is_shown_and_only_adopted_with_a_reason(
    service: Service, run: Shell
) -> None:
    await service.post("/usage", {"user_id": "ada", "usage_type": "api_calls", "quantity": 1})
    await service.drained()
    await service.redis.run("HSET", keys.meta(0), "replid", "f" * 40)
    shown = await run("adopt-redis", "0")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"Redis holds the history of {'f' * 40}" in shown.stdout
    gap = await run("accept-gap", "0", "--reason", "x")
    assert (gap.returncode, gap.stderr.count("\n")) == (1, 1)
    assert "./run adopt-redis comes first" in gap.stderr
    adopted = await run("adopt-redis", "0", "1", "--reason", "the old master is back")
    assert adopted.returncode == 1
    assert adopted.stderr == "billing: partition 1 is believed already\n"
    assert "partition 0: adopted" in adopted.stdout
    await service.drained()
    await check(service)
