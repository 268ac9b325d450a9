"""A Redis that is slow: a relay in front of it, whose answers come late."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from bench.processes import HOST


class Relay:
    """Relays to the server of a URL; what the server says comes `delay_s` later."""

    def __init__(self, url: str) -> None:
        self.delay_s = 0.0
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._relay, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        user = self._target.netloc.rpartition("@")[0]
        return urlunsplit(self._target._replace(netloc=f"{user}@{HOST}:{port}"))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target.hostname, self._target.port
        inner_reader, inner_writer = await asyncio.open_connection(host, port)
        pumps = (self._pump(reader, inner_writer, False), self._pump(inner_reader, writer, True))
        await asyncio.gather(*pumps)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        due = 0.0  # never before what came earlier
        with suppress(OSError):
            while data := await reader.read(65536):
                due = max(due, loop.time() + self.delay_s) if late else 0.0
                loop.call_at(due, writer.write, data)
        loop.call_at(due, writer.close)
