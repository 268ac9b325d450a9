"""The databases of one server: made, swapped by rename and dropped from its maintenance database.
Their names cannot be parameters of a statement, so the statements are here."""

from __future__ import annotations

import asyncio
from datetime import datetime
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from gateway.backup.problem import BackupProblem
from ledger import clock, db, store
from ledger.settings import SettingError

_LONGEST_NAME = 63  # bytes of a name in Postgres
_SUFFIX = 26
# A session that was closed is listed until its process has ended.
_GOODBYE_S, _GOODBYE_POLL_S = 1.0, 0.05


class Databases:
    """A connection to the server of a database URL; `name` is the URL's database."""

    def __init__(self, database_url: str) -> None:
        self._url = urlsplit(database_url)
        self.name = unquote(self._url.path.lstrip("/"))
        if not self.name or len(self.name.encode()) > _LONGEST_NAME - _SUFFIX:
            raise SettingError("DATABASE_URL", "must name a database, in at most 37 bytes")
        self.draft = f"{self.name}_restoring"

    async def __aenter__(self) -> Self:
        try:
            self._connection = await db.connect(self.url("postgres"), patient=True)
        except (*db.UNAVAILABLE, db.PostgresError, ValueError) as error:
            raise unreachable(error) from None
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._connection.close(timeout=1)

    def url(self, name: str) -> str:
        return urlunsplit(self._url._replace(path=f"/{quote(name, safe='')}"))

    @property
    def postgres(self) -> int:
        """The server's major version."""
        return self._connection.get_server_version().major

    async def exists(self) -> bool:
        return await store.database_exists(self._connection, self.name)

    async def refuse_connected(self) -> None:
        """Raises `BackupProblem` while anything uses the database: it would go on with the old."""
        deadline = clock.monotonic() + _GOODBYE_S
        while sessions := await store.connected_sessions(self._connection, self.name):
            if clock.monotonic() < deadline:
                await asyncio.sleep(_GOODBYE_POLL_S)
                continue
            raise BackupProblem(
                f"database {self.name} is in use (sessions: {sessions}); "
                "stop the gateway, the ledger and every other client of it first"
            )

    async def create_draft(self) -> None:
        """An empty database beside the present one. What an interrupted restore left is dropped."""
        await self._execute(f"DROP DATABASE IF EXISTS {_quoted(self.draft)}")
        await self._execute(f"CREATE DATABASE {_quoted(self.draft)} TEMPLATE template0")

    async def drop_draft(self) -> None:
        # By force: the session of a pg_restore that was ended may not have noticed yet.
        await self._execute(f"DROP DATABASE IF EXISTS {_quoted(self.draft)} WITH (FORCE)")

    async def drop(self, name: str) -> None:
        await self._execute(f"DROP DATABASE {_quoted(name)}")

    async def swap(self, now: datetime) -> str | None:
        """Gives the draft the database's name, in one step; the name the former has now, None
        when there was none."""
        former = f"{self.name}_before_{now:%Y%m%dT%H%M%SZ}" if await self.exists() else None
        async with self._connection.transaction():
            if former:
                await self._rename(self.name, former)
            await self._rename(self.draft, self.name)
        return former

    async def _rename(self, name: str, to: str) -> None:
        await self._execute(f"ALTER DATABASE {_quoted(name)} RENAME TO {_quoted(to)}")

    async def _execute(self, statement: str) -> None:
        try:
            await self._connection.execute(statement)
        except db.PostgresError as error:
            raise BackupProblem(f"Postgres: {error}") from None


def unreachable(error: Exception) -> BackupProblem:
    """What to say when there is no connection. The error's own words may hold the password."""
    if (line := db.misconfigured(error)) is not None:
        return BackupProblem(line, 2)
    return BackupProblem(
        f"no connection to Postgres ({type(error).__name__}); "
        "is DATABASE_URL right and Postgres running?"
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
