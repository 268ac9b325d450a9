"""A server that can be slow, lose answers, fall silent or be unplugged: a relay in front of it, for
the slow Redis of the benchmark, the outages of the tests and the faults of `chaos`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit


class Relay:
    """Relays to the server of a URL; `url` is the same with the relay's port. What the server
    says comes `delay_s` later; where `loses` says so it is lost, and the connection with it. While
    `flows` is clear nothing passes either way; then it all does."""

    def __init__(self, url: str, port: int = 0) -> None:
        self.delay_s = 0.0
        self.loses: Callable[[], bool] = lambda: False
        self.flows = asyncio.Event()
        self.flows.set()
        self._target = urlsplit(url)
        self._port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Relay:
        await self.restore()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    @property
    def url(self) -> str:
        user, at, _ = self._target.netloc.rpartition("@")
        return urlunsplit(self._target._replace(netloc=f"{user}{at}127.0.0.1:{self._port}"))

    async def restore(self) -> None:
        """Takes connections, on the same port as before."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Drops every connection; new ones are refused."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self._target.port
        assert port is not None
        self._writers.add(writer)
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            self._writers.remove(writer)
            writer.close()
            return
        if writer.is_closing():  # cut meanwhile
            inner_writer.close()
        self._writers.add(inner_writer)
        try:
            await asyncio.gather(
                self._pump(reader, inner_writer), self._pump_back(inner_reader, writer)
            )
        finally:
            self._writers -= {writer, inner_writer}
            inner_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self.flows.wait()
                if writer.is_closing():
                    break
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _pump_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            """In order, also when the delay changes."""
            while True:
                due, data = await late.get()
                await asyncio.sleep(max(0, due - loop.time()))
                await self.flows.wait()
                if not writer.is_closing():
                    writer.write(data)
                late.task_done()

        delivery = asyncio.ensure_future(deliver())
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.loses():
                    late.put_nowait((0, data[: len(data) // 2]))
                    break
                late.put_nowait((loop.time() + self.delay_s, data))
        await late.join()
        delivery.cancel()
        writer.close()
