"""A ledger with usage in it, and the commands as an operator types them."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
import pytest
import structlog

from gateway import cli
from gateway.dev.postgres import Postgres
from gateway.dev.servers import Valkey
from ledger import db
from ledger.settings import Settings
from lua.connection import RedisConnection
from tests.conftest import Services
from tests.dev.processes import environment


class Answer(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Operator:
    """Runs commands against the database of `url`, which may be changed."""

    def __init__(self, url: str, data_dir: Path) -> None:
        self.url, self.data_dir = url, data_dir
        self.archive = data_dir / "ledger.backup"

    async def run(self, *words: str | Path, **variables: str) -> Answer:
        """As a process would, but in a thread of ours: without the time that a start takes."""
        given = environment(self.data_dir, **{"DATABASE_URL": self.url, **variables})
        with (
            mock.patch.dict(os.environ, given, clear=True),
            redirect_stdout(StringIO()) as stdout,
            redirect_stderr(StringIO()) as stderr,
        ):
            logging = structlog.get_config()
            code = await asyncio.to_thread(cli.main, [str(word) for word in words])
            structlog.configure(**logging)  # commands are silent, and would leave us so
        return Answer(code, stdout.getvalue(), stderr.getvalue())

    async def done(self, *words: str | Path, **variables: str) -> str:
        """What it prints; it must succeed."""
        answer = await self.run(*words, **variables)
        assert (answer.returncode, answer.stderr) == (0, "")
        return answer.stdout

    async def told(self, *words: str | Path, **variables: str) -> Any:
        """What it says in JSON; it must succeed."""
        return msgspec.json.decode(await self.done(*words, "--json", **variables))

    async def refused(self, *words: str | Path, exit_code: int = 1, **variables: str) -> str:
        """The one line it fails with."""
        answer = await self.run(*words, **variables)
        assert (answer.returncode, answer.stdout) == (exit_code, ""), answer.stderr
        assert answer.stderr.startswith("billing: ") and answer.stderr.count("\n") == 1
        assert (urlsplit(self.url).password or "?") not in answer.stderr
        return answer.stderr.removeprefix("billing: ").strip()

    async def copy(self, database: str, name: str) -> None:
        await self.sql(f"CREATE DATABASE {name} TEMPLATE {database}", database="postgres")

    @property
    def database(self) -> str:
        return urlsplit(self.url).path[1:]

    async def sql(self, statement: str, *args: object, database: str | None = None) -> list[object]:
        """The first column, from this database or another of the server."""
        path = f"/{database or self.database}"
        connection = await asyncpg.connect(urlunsplit(urlsplit(self.url)._replace(path=path)))
        try:
            return [row[0] for row in await connection.fetch(statement, *args)]
        finally:
            await connection.close()

    async def databases(self) -> Sequence[object]:
        """Those of this test: the database and what was made beside it."""
        like = "SELECT datname FROM pg_database WHERE datname ~ $1 ORDER BY datname"
        return await self.sql(like, f"^{self.database}(_|$)", database="postgres")


@pytest.fixture(scope="session")
async def _kept(
    postgres: Postgres, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Operator:
    """A ledger with some usage, made once, and a backup of it."""
    made = Operator(postgres.url, tmp_path_factory.mktemp("kept"))
    await made.copy("billing", "used")
    made.url = urlunsplit(urlsplit(postgres.url)._replace(path="/used"))
    config = Settings(
        database_url=made.url, redis_url=valkey.url, data_dir=made.data_dir, partitions=4, port=0
    )
    redis, sql = RedisConnection(valkey.url), await db.connect(made.url)
    await redis.run("FLUSHALL")
    services = Services(config, sql)
    service = await services.start()
    for user in ("ada", "bob"):
        body = {"user_id": user, "organization_id": "clinic", "usage_type": "api_calls"}
        assert (await service.post("/usage", {**body, "quantity": 3}))[0] == 201
    await service.drained()
    await services.stop()
    await redis.close()
    await sql.close()
    await made.done("backup", "--to", made.archive)
    return made


@pytest.fixture
async def operator(_kept: Operator, tmp_path: Path, _numbers: Iterator[int]) -> Operator:
    """Of a database with some usage, drained; nothing is running."""
    name = f"backup_{next(_numbers)}"
    await _kept.copy(_kept.database, name)
    return Operator(urlunsplit(urlsplit(_kept.url)._replace(path=f"/{name}")), tmp_path)


@pytest.fixture
async def archive(_kept: Operator, operator: Operator) -> Path:
    """A backup of it, with its key."""
    for name in (operator.archive.name, "backup-key"):
        shutil.copy(_kept.data_dir / name, operator.data_dir / name)
    return operator.archive
