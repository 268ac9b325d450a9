"""`./run`: everything together, from the first request to the last process."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.dev.processes import (
    Supervisor,
    alive,
    call,
    children,
    environment,
    eventually,
    supervisor,
)

USAGE = {"user_id": "test-user", "usage_type": "api_calls", "quantity": 10}
READY = "billing is ready: "


@pytest.fixture
def port() -> int:
    return _free_port()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _request(
    port: int, method: str, path: str, body: object = None, token: str | None = None
) -> tuple[int, dict[str, object]]:
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")
    finally:
        connection.close()


def _record(port: int, token: str | None = None) -> int:
    return _request(port, "POST", "/api/v1/billing/usage", USAGE, token)[0]


def _used(port: int, token: str) -> float:
    _, answer = _request(port, "GET", "/api/v1/billing/quota/test-user", token=token)
    quotas = answer["quotas"]
    assert isinstance(quotas, list)
    (used,) = (quota["used"] for quota in quotas if quota["usage_type"] == "api_calls")
    return float(used)


def _child(running: Supervisor, word: str) -> int:
    (pid,) = (pid for pid, line in children(running.pid).items() if word in line)
    return pid


def _ready(port: int) -> bool:
    try:
        return _request(port, "GET", "/readyz")[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_one_command_serves_the_first_request_and_leaves_nothing_behind(
    tmp_path: Path, port: int
) -> None:
    environ = environment(tmp_path, PORT=str(port))
    with supervisor(environ=environ) as running:
        assert running.read_until(READY).startswith(f"{READY}http://127.0.0.1:{port} ")
        shown = running.read_until("  TOKEN=").partition("=")[2]
        assert _record(port) == 201
        assert _record(port, shown) == 201
        second_shell = environment(tmp_path)
        token = call("token", "--role", "service", environ=second_shell).stdout.strip()
        assert _used(port, token) == 20
        migrated = call("migrate", environ=second_shell)
        assert (migrated.returncode, migrated.stdout) == (0, "0 migrations applied\n")
        pids = set(children(running.pid))
        assert len(pids) == 4
        assert running.end(signal.SIGINT) == 0
        assert not any(map(alive, pids))

    with supervisor(environ=environ) as running:
        running.read_until(READY)
        assert _used(port, token) == 20
        assert running.end(signal.SIGTERM) == 0


def test_its_redis_has_the_replicas_that_are_asked_for(tmp_path: Path, port: int) -> None:
    wanted = {"DURABILITY": "replicated", "DURABILITY_REPLICAS": "1"}
    with supervisor(environ=environment(tmp_path, PORT=str(port), **wanted)) as running:
        running.read_until(READY)
        _, said = _request(port, "GET", "/readyz")
        assert (said["status"], said.get("reasons", [])) == ("ready", [])
        assert said["durability"] == {"wanted": "replicated", "in_force": "replicated"}
        assert len(children(running.pid)) == 5
        assert _record(port) == 201
        assert running.end(signal.SIGTERM) == 0


def test_kill_9_of_each_process_loses_nothing_and_of_the_supervisor_leaves_no_orphan(
    tmp_path: Path, port: int
) -> None:
    environ = environment(tmp_path, PORT=str(port))
    with supervisor(environ=environ) as running:
        running.read_until(READY)
        token = call("token", "--role", "service", environ=environ).stdout.strip()
        assert _record(port) == 201
        for word in ("-m ledger", "-m gateway", "postgres", "valkey-server"):
            pid = _child(running, word)
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: pid not in children(running.pid))  # noqa: B023 - called at once
            eventually(lambda: len(children(running.pid)) == 4 and _ready(port))
            assert _used(port, token) == 10, word
        pids = set(children(running.pid))
        running.end(signal.SIGKILL)
        eventually(lambda: not any(map(alive, pids)), timeout=10)

    with supervisor(environ=environ) as running:
        running.read_until(READY)
        assert _used(port, token) == 10
        assert running.end(signal.SIGTERM) == 0


def test_it_uses_the_servers_it_is_given_and_two_run_side_by_side(tmp_path: Path) -> None:
    ports = [_free_port(), _free_port()]
    with supervisor("infrastructure", environ=environment(tmp_path / "servers")) as servers:
        given = environment(tmp_path / "given", PORT=str(ports[0]), **servers.exports())
        alone = environment(tmp_path / "alone", PORT=str(ports[1]))
        with supervisor("up", environ=given) as first, supervisor("up", environ=alone) as second:
            first.read_until(READY)
            second.read_until(READY)
            assert len(children(first.pid)) == 2
            assert len(children(second.pid)) == 4
            assert [_record(port) for port in ports] == [201, 201]
            assert first.end(signal.SIGTERM) == second.end(signal.SIGTERM) == 0


def test_a_given_server_out_of_reach_is_one_line(tmp_path: Path, port: int) -> None:
    url = f"postgresql://u@127.0.0.1:{_free_port()}/d"
    answer = call(environ=environment(tmp_path, PORT=str(port), DATABASE_URL=url))
    assert answer.returncode == 1
    assert answer.stderr.startswith("billing: the database cannot be migrated: ")
    assert answer.stderr.count("\n") == 1
