"""Keeps children running: restarts those that die, and stops in order when told to."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

from gateway.children import Child, StartError
from ledger import clock

_DEATHS_ALLOWED = 5  # within the window; the next one ends everything
_DEATHS_WINDOW_S = 60.0
_LONGEST_PAUSE_S = 10.0
_FIRST_PAUSE_S = 0.2  # doubles with each death in the window
_MISCONFIGURED = 2  # a program's exit code when its environment is wrong: no use to repeat


async def keep_alive(children: Sequence[Child], *others: Coroutine[Any, Any, None]) -> None:
    """Runs until a child, or one of the others, fails for good. Raises `StartError`."""
    tasks = [asyncio.create_task(work) for work in (*map(_watch, children), *others)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_stopped(work: Coroutine[Any, Any, None]) -> int:
    """Runs `work` until a signal asks to stop, and waits for its clean-up. The exit code."""
    task = asyncio.ensure_future(work)

    def stop() -> None:
        if not task.cancelling():  # a second Ctrl-C must not cut the clean-up short
            task.cancel()
            _say("stopping")

    loop = asyncio.get_running_loop()
    # A shell has what it starts in the background ignore SIGINT; sent to us, it means stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it on purpose
        loop.add_signal_handler(signal.SIGHUP, stop)
    try:
        await task
    except asyncio.CancelledError:
        return 0
    return 1


async def _watch(child: Child) -> None:
    deaths: deque[float] = deque()
    while True:
        code = await child.wait()
        if code == _MISCONFIGURED:
            raise StartError(f"{child.name} refuses its configuration (see above)", code)
        now = clock.monotonic()
        deaths.append(now)
        while now - deaths[0] > _DEATHS_WINDOW_S:
            deaths.popleft()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if len(deaths) > _DEATHS_ALLOWED and child.vital:
            raise StartError(f"{child.name} ended {len(deaths)} times in a minute, last by {cause}")
        pause = min(_FIRST_PAUSE_S * 2 ** (len(deaths) - 1), _LONGEST_PAUSE_S)
        _say(f"{child.name} ended by {cause}; starting it again in {pause:.1f} s")
        await asyncio.sleep(pause)
        try:
            await child.start()
        except StartError as error:
            _say(str(error))


def _say(line: str) -> None:
    print(f"billing: {line}", file=sys.stderr, flush=True)
