"""What each kind of fault of a connection does to its relay, for as many seconds as it holds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from bench.relay import Relay

_DELAY_S = 0.3
_DROPPED = 0.05  # of what a server says


async def _cut(link: Relay, hold_s: float, dice: random.Random) -> None:
    await link.cut()
    await asyncio.sleep(hold_s)
    await link.restore()


async def _delay(link: Relay, hold_s: float, dice: random.Random) -> None:
    link.delay_s = _DELAY_S
    await asyncio.sleep(hold_s)
    link.delay_s = 0.0


async def _drop(link: Relay, hold_s: float, dice: random.Random) -> None:
    link.loses = lambda: dice.random() < _DROPPED
    await asyncio.sleep(hold_s)
    link.loses = lambda: False


async def _stall(link: Relay, hold_s: float, dice: random.Random) -> None:
    link.flows.clear()
    await asyncio.sleep(hold_s)
    link.flows.set()


async def _halfopen(link: Relay, hold_s: float, dice: random.Random) -> None:
    link.flows.clear()
    await asyncio.sleep(hold_s)
    await link.cut()
    link.flows.set()
    await link.restore()


FAULTS: dict[str, Callable[[Relay, float, random.Random], Awaitable[None]]] = {
    "cut": _cut,
    "delay": _delay,
    "drop": _drop,
    "stall": _stall,
    "halfopen": _halfopen,
}
