"""A connection and scripts that fail at the nth step; each awaited call is two: before, after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from ledger import db
from lua.scripts import Scripts


class Crash(Exception):
    """What a process killed at this very place would look like to the ledger."""


class Tripwire:
    """Counts steps and fails at one of them: the `at`th, of those that are `named` so."""

    def __init__(self, at: int, named: str = "") -> None:
        self._left = at
        self._named = named
        self.name = ""

    @property
    def tripped(self) -> bool:
        return self._left < 0

    def step(self, name: str) -> None:
        if self.tripped or self._named not in ("", name):
            return
        self._left -= 1
        if self.tripped:
            self.name = name
            raise Crash(name)

    async def around(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        self.step(f"before {name}")
        result = await call()
        self.step(f"after {name}")
        return result


class CrashingConnection:
    """An asyncpg connection whose calls and commits fail."""

    def __init__(self, inner: db.Connection, wire: Tripwire) -> None:
        self._inner, self._wire = inner, wire

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in ("execute", "copy_to_table", "fetch", "fetchrow", "fetchval"):
            return found

        async def call(*args: Any, **options: Any) -> Any:
            return await self._wire.around(name, lambda: found(*args, **options))

        return call

    def transaction(self, **options: Any) -> _Transaction:
        return _Transaction(self._inner.transaction(**options), self._wire)


class _Transaction:
    def __init__(self, inner: Any, wire: Tripwire) -> None:
        self._inner, self._wire = inner, wire

    async def __aenter__(self) -> None:
        await self._wire.around("begin", self._inner.__aenter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            try:
                self._wire.step("before commit")
            except Crash as crash:
                await self._inner.__aexit__(Crash, crash, None)
                raise
        await self._inner.__aexit__(kind, error, trace)
        if error is None:
            self._wire.step("after commit")


class CrashingScripts:
    """The scripts, failing before or after Redis has run one."""

    def __init__(self, inner: Scripts, wire: Tripwire) -> None:
        self._inner, self._wire = inner, wire

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        async def call(*args: Any, **options: Any) -> Any:
            return await self._wire.around(name, lambda: found(*args, **options))

        return call
