"""A ledger with usage in it, and the commands as an operator types them."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from gateway.dev.servers import Postgres
from ledger.settings import Settings
from tests.conftest import Service, Services
from tests.dev.processes import call, environment


class Operator:
    """Runs commands against the database of `url`, which may be changed."""

    def __init__(self, url: str, data_dir: Path) -> None:
        self.url, self.data_dir = url, data_dir
        self.archive = data_dir / "ledger.backup"

    async def run(self, *words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        given = {"DATABASE_URL": self.url, **variables}
        environ = environment(self.data_dir, **given)
        return await asyncio.to_thread(call, *map(str, words), environ=environ)

    async def done(self, *words: str | Path, **variables: str) -> str:
        """What it prints; it must succeed."""
        answer = await self.run(*words, **variables)
        assert (answer.returncode, answer.stderr) == (0, "")
        return answer.stdout

    async def refused(self, *words: str | Path, exit_code: int = 1, **variables: str) -> str:
        """The one line it fails with."""
        answer = await self.run(*words, **variables)
        assert (answer.returncode, answer.stdout) == (exit_code, ""), answer.stderr
        assert answer.stderr.startswith("billing: ") and answer.stderr.count("\n") == 1
        assert (urlsplit(self.url).password or "?") not in answer.stderr
        return answer.stderr.removeprefix("billing: ").strip()

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


@pytest.fixture
async def operator(database_url: str, tmp_path: Path, postgres: Postgres) -> Operator:
    return Operator(database_url, tmp_path)


@pytest.fixture
async def used(services: Services, settings: Settings, operator: Operator) -> AsyncIterator[None]:
    """Some usage, drained; gateway and ledger are stopped again."""
    service = await services.start()
    for user in ("ada", "bob"):
        body = {"user_id": user, "organization_id": "clinic", "usage_type": "api_calls"}
        assert (await service.post("/usage", {**body, "quantity": 3}))[0] == 201
    await service.drained()
    await services.stop()
    await service.sql.close()
    yield


__all__ = ["Operator", "Service"]
