"""A relay that falls silent keeps what is said, and does not hang up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from bench.relay import Relay


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    """In front of a server that repeats each line."""

    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(repeat, "127.0.0.1", 0)
    async with Relay(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as started:
        yield started
    server.close()


async def connect(relay: Relay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = int(relay.url.rpartition(":")[2])
    return await asyncio.open_connection("127.0.0.1", port)


async def test_nothing_passes_a_silent_relay_and_everything_does_afterwards(relay: Relay) -> None:
    reader, writer = await connect(relay)
    writer.write(b"before\n")
    assert await reader.readline() == b"before\n"
    relay.flows.clear()
    writer.write(b"meanwhile\n")
    late = asyncio.create_task(reader.readline())
    other_reader, _ = await connect(relay)  # taken as ever: only what is said waits
    assert not late.done()
    assert not other_reader.at_eof()
    relay.flows.set()
    assert await late == b"meanwhile\n"
    writer.close()


async def test_a_silent_relay_can_turn_out_to_be_dead(relay: Relay) -> None:
    reader, writer = await connect(relay)
    writer.write(b"before\n")
    assert await reader.readline() == b"before\n"
    relay.flows.clear()
    writer.write(b"into the void\n")
    await relay.cut()
    relay.flows.set()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    await relay.restore()
    reader, writer = await connect(relay)
    writer.write(b"again\n")
    assert await reader.readline() == b"again\n"
    writer.close()
