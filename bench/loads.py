"""Puts one load on one process and notes what the process spent on it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

from bench import generator, wrk
from bench.generator import AsFastAsPossible, FixedRate, Pacing, Sample
from bench.processes import Process
from bench.rig import Rig
from bench.traffic import Population
from bench.wires import Address, Sockets

CLOSED_CONNECTIONS = 32
OPEN_CONNECTIONS = 64  # an open loop must not be held up by its own connections


async def saturate(
    rig: Rig, process: Process, population: Population, seconds: float, *, use_wrk: bool
) -> Sample:
    """As many single records as the process takes."""
    keys = rig.traffic.keys()
    if not use_wrk:
        return await closed(process, rig.traffic.singles(population, keys), seconds)
    before = process.cpu_s
    sample = await asyncio.to_thread(
        wrk.run,
        process.address,
        population,
        keys,
        rig.token,
        seconds=seconds,
        connections=CLOSED_CONNECTIONS,
    )
    sample.cpu_s = process.cpu_s - before
    return sample


async def closed(
    process: Process, requests: Iterator[bytes], seconds: float, count: int | None = None
) -> Sample:
    """A closed loop of our own, over after so many seconds or requests."""
    return await _load(process, requests, AsFastAsPossible(seconds, count), CLOSED_CONNECTIONS)


async def opened(
    process: Process,
    requests: Iterator[bytes],
    rate: int,
    seconds: float,
    connections: int = OPEN_CONNECTIONS,
) -> Sample:
    """An open loop: `rate` requests per second, come what may."""
    return await _load(process, requests, FixedRate(rate, seconds), connections)


async def _load(
    process: Process, requests: Iterator[bytes], pacing: Pacing, connections: int
) -> Sample:
    before = process.cpu_s
    sample = await asyncio.to_thread(_run, process.address, requests, pacing, connections)
    sample.cpu_s = process.cpu_s - before
    return sample


def _run(
    address: Address,
    requests: Iterator[bytes],
    pacing: Pacing,
    connections: int,
) -> Sample:
    wires = Sockets(address, connections)
    gc.collect()
    gc.disable()  # a collection in the middle would be taken for the server's latency
    try:
        return generator.run(wires, connections, requests, pacing)
    finally:
        gc.enable()
        wires.close()
