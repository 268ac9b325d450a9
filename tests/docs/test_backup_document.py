"""What docs/backup.md tells an operator to do, done in its order and as printed."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.dev.processes import ROOT, Supervisor, environment, eventually, supervisor

DOCUMENT = ROOT / "docs" / "backup.md"
BLOCKS = [
    block.strip() for block in re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
]
STAYS = ("./run", "./run infrastructure")


class Machine:
    """A shell in a folder with `run` in it, and one more shell where something stays."""

    def __init__(self, folder: Path, environ: Mapping[str, str], stack: ExitStack) -> None:
        self._folder, self._environ, self._stack = folder, environ, stack
        self._staying: Supervisor | None = None
        self.database_url = ""

    def do(self, block: str) -> None:
        if block in STAYS:
            self._stay(block.removeprefix("./run").split())
            return
        answer = subprocess.run(
            ["sh", "-eu", "-c", block], cwd=self._folder, env=self._environ, capture_output=True
        )
        assert (answer.returncode, answer.stderr) == (0, b""), answer

    def _stay(self, words: list[str]) -> None:
        if self._staying is not None:
            assert self._staying.end(signal.SIGINT) == 0
        self._staying = self._stack.enter_context(supervisor(*words, environ=self._environ))
        if words:
            self.database_url = self._staying.exports()["DATABASE_URL"]
        else:
            self._staying.read_until("billing is ready: ")

    def request(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", int(self._environ["PORT"]), timeout=10)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def record(self, times: int) -> None:
        usage = {"user_id": "test-user", "usage_type": "api_calls", "quantity": 10}
        for _ in range(times):
            assert "usage_id" in self.request("POST", "/api/v1/billing/usage", usage)
        eventually(lambda: bool(self.request("GET", "/readyz")["ledger_lag"] == 0))

    def recorded(self) -> int:
        return len(self.request("GET", "/api/v1/billing/usage?user_id=test-user&limit=100")["data"])

    def sql(self, statement: str) -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(self.database_url)
            await connection.execute(statement)
            await connection.close()

        asyncio.run(execute())


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    (tmp_path / "run").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m gateway.cli "$@"\n')
    (tmp_path / "run").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    with ExitStack() as stack:
        yield Machine(tmp_path, environment(tmp_path / "data", PORT=port), stack)


def test_the_steps_bring_back_what_was_recorded_before_and_after_the_backup(
    machine: Machine,
) -> None:
    before, at_three = BLOCKS[:2], BLOCKS[2:]
    assert [one for one in at_three if one in STAYS] == ["./run infrastructure", "./run"]
    machine.do("./run")
    machine.record(3)
    for block in before:
        machine.do(block)
    machine.record(4)
    for block in at_three:
        machine.do(block)
        if block == "./run infrastructure":
            machine.sql("DROP TABLE usage_records, usage_totals CASCADE")
    eventually(lambda: machine.recorded() == 7)
    assert machine.request("GET", "/readyz")["status"] == "ready"
