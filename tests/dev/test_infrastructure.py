"""`./run infrastructure`: starts, stops, dies and refuses as it should."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import msgspec
import pytest
from redis import Redis, RedisError

from tests.dev.processes import (
    Supervisor,
    alive,
    call,
    children,
    environment,
    eventually,
    supervisor,
)


def _pids(running: Supervisor) -> set[int]:
    return set(children(running.pid))


def test_prints_urls_that_work_and_stops_cleanly(tmp_path: Path) -> None:
    with supervisor("infrastructure", environ=environment(tmp_path)) as running:
        urls = running.exports()
        runtime = tmp_path / "runtime.json"
        assert stat.S_IMODE(runtime.stat().st_mode) == 0o600
        known = msgspec.json.decode(runtime.read_bytes())
        assert {name.lower(): url for name, url in urls.items()} == known
        with Redis.from_url(urls["REDIS_URL"], protocol=2) as client:
            assert client.ping()
        pids = _pids(running)
        assert len(pids) == 2
        assert running.end(signal.SIGTERM) == 0
        assert not any(map(alive, pids))
        assert not runtime.exists()


def test_ctrl_c_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    with supervisor("infrastructure", environ=environment(tmp_path)) as running:
        eventually(lambda: bool(_pids(running)))
        pids = _pids(running)
        assert running.end(signal.SIGINT) == 0
        eventually(lambda: not any(map(alive, pids)))


def test_kill_9_leaves_no_orphan_and_the_next_start_finds_the_data(tmp_path: Path) -> None:
    environ = environment(tmp_path)
    with supervisor("infrastructure", environ=environ) as running:
        urls = running.exports()
        with Redis.from_url(urls["REDIS_URL"], protocol=2) as client:
            client.set("kept", "1")
        pids = _pids(running)
        running.end(signal.SIGKILL)
        eventually(lambda: not any(map(alive, pids)), timeout=10)
    assert (tmp_path / "runtime.json").exists()
    stale = call("migrate", environ=environ)
    assert (stale.returncode, stale.stderr.count("DATABASE_URL")) == (2, 1)
    with supervisor("infrastructure", environ=environ) as running:
        assert running.exports() == urls
        with Redis.from_url(urls["REDIS_URL"], protocol=2) as client:
            assert client.get("kept") == b"1"


def test_a_server_that_dies_comes_back_where_it_was(tmp_path: Path) -> None:
    with supervisor("infrastructure", environ=environment(tmp_path)) as running:
        url = running.exports()["REDIS_URL"]
        (pid,) = (pid for pid, line in children(running.pid).items() if "postgres" not in line)
        with Redis.from_url(url, protocol=2) as client:
            client.set("kept", "1")
        os.kill(pid, signal.SIGKILL)

        def has_its_data() -> bool:
            try:
                with Redis.from_url(url, protocol=2) as client:
                    return bool(client.get("kept") == b"1")
            except RedisError:
                return False

        eventually(lambda: not alive(pid))
        eventually(has_its_data)
        assert running.end(signal.SIGTERM) == 0


def test_two_folders_run_side_by_side_and_one_folder_only_once(tmp_path: Path) -> None:
    one, two = environment(tmp_path / "one"), environment(tmp_path / "two")
    with (
        supervisor("infrastructure", environ=one) as first,
        supervisor("infrastructure", environ=two) as second,
    ):
        assert not set(first.exports().values()) & set(second.exports().values())
        again = call("infrastructure", environ=one)
        assert again.returncode == 2
        assert again.stderr.splitlines() == [
            f"billing: BILLING_DATA_DIR: {tmp_path}/one is in use by another ./run;"
            " stop it, or set another folder"
        ]
        assert first.end(signal.SIGINT) == second.end(signal.SIGINT) == 0


def test_doctor_judges_by_what_the_running_servers_were_started_with(tmp_path: Path) -> None:
    with supervisor("infrastructure", environ=environment(tmp_path, DURABILITY="dev-fast")) as one:
        one.exports()
        second = environment(tmp_path)
        assert call("migrate", environ=second).returncode == 0
        answer = call("doctor", environ=second)
        assert (answer.returncode, answer.stderr) == (0, "")
        assert "problem" not in answer.stdout
        asked_for_more = call("doctor", environ={**second, "DURABILITY": "default"})
        assert asked_for_more.returncode == 1
        assert "appendfsync" in asked_for_more.stdout


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """A folder that cannot be made: its parent is a file, which stops root too."""
    parent = tmp_path / "file"
    parent.touch()
    return parent / "data"


def test_a_folder_that_cannot_be_made_is_one_line(read_only: Path) -> None:
    answer = call("infrastructure", environ=environment(read_only))
    assert answer.returncode == 2
    assert answer.stderr == (
        f"billing: BILLING_DATA_DIR: {read_only} cannot be made: Not a directory\n"
    )
