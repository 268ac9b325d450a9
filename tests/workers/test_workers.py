"""Several gateway processes on one port, as a real process tree."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, TCPConnector

from ledger import db, loops
from ledger.settings import Settings
from lua.connection import RedisConnection
from tests.conftest import BASE

ROOT = Path(__file__).resolve().parents[2]
USAGE = {"user_id": "a", "usage_type": "api_calls", "quantity": 1}


class Gateway:
    """A parent process with two workers on a port of its own choosing."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    def children(self) -> set[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return {int(pid) for pid in path.read_text().split()}

    async def counted(self) -> float:
        async with ClientSession() as http, http.get(f"{self.url}/metrics") as response:
            found = re.search(r"^billing_usage_total\S+ (\S+)$", await response.text(), re.M)
            return float(found.group(1)) if found else 0

    async def become(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - another process, no event
                await asyncio.sleep(0.01)


@pytest.fixture
async def gateway(
    settings: Settings, connection: db.Connection, redis: RedisConnection
) -> AsyncIterator[Gateway]:
    await loops.check_partitions(connection, settings.partitions)
    with (settings.data_dir / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway",
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PORT": "18999",
                "GATEWAY_WORKERS": "2",
                "PARTITIONS": str(settings.partitions),
                "REDIS_URL": settings.redis_url,
                "DATABASE_URL": settings.database_url,
                "BILLING_DATA_DIR": str(settings.data_dir),
            },
            stdout=log,
            stderr=log,
        )
    started = Gateway(process, "http://127.0.0.1:18999")
    async with asyncio.timeout(30), ClientSession() as http:
        while True:
            try:
                async with http.get(f"{started.url}/livez"):
                    break
            except ClientError:
                assert process.returncode is None, (settings.data_dir / "log").read_text()
                await asyncio.sleep(0.01)
    await started.become(lambda: len(started.children()) == 2)  # one of them answered
    yield started
    if process.returncode is None:
        process.kill()
        await process.wait()


async def test_a_reload_and_a_stop_under_load_fail_no_request(gateway: Gateway) -> None:
    before = gateway.children()
    answers: list[int] = []
    enough = asyncio.Event()

    async def client() -> None:
        async with ClientSession(connector=TCPConnector(force_close=True)) as http:
            while not enough.is_set():
                async with http.post(f"{gateway.url}{BASE}/usage", json=USAGE) as response:
                    answers.append(response.status)

    clients = [asyncio.ensure_future(client()) for _ in range(8)]
    gateway.process.send_signal(signal.SIGHUP)
    await gateway.become(lambda: len(gateway.children()) == 2 and not before & gateway.children())
    enough.set()
    await asyncio.gather(*clients)
    assert set(answers) == {201}
    assert await gateway.counted() == len(answers)

    gateway.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(gateway.process.wait(), 20) == 0


async def test_a_crashed_worker_is_replaced_and_what_it_counted_stays(gateway: Gateway) -> None:
    async with ClientSession(connector=TCPConnector(force_close=True)) as http:
        for _ in range(20):
            async with http.post(f"{gateway.url}{BASE}/usage", json=USAGE) as response:
                assert response.status == 201
    before = gateway.children()
    os.kill(min(before), signal.SIGKILL)
    await gateway.become(lambda: len(gateway.children() - before) == 1)
    assert await gateway.counted() == 20


async def test_workers_do_not_outlive_their_parent(gateway: Gateway) -> None:
    workers = gateway.children()
    assert len(workers) == 2
    gateway.process.kill()
    await gateway.process.wait()
    await gateway.become(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
