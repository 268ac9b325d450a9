"""``./run replay FILE.csv``: send the rows of a CSV file as usage records, safely repeatable.

`options` reads the command line, `plan` turns rows into records with their keys,
`send` gets each one answered, `report` keeps the account; here are the pacing and
the way a run ends.

Exit codes: 0 everything was answered (denied by quota is an answer), 1 something was rejected,
is unknown or was not sent, 2 the command or the file cannot be used, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from gateway.replay import options
from gateway.replay.options import CommandProblem, add_arguments
from gateway.replay.plan import FileProblem, Record, Row, Rows, identity_of
from gateway.replay.report import Progress, Tally, summary
from gateway.replay.send import BATCH, Sender, Service, ServiceProblem, Timer

__all__ = ["Batches", "add_arguments", "replay"]

_TIMEOUT = 30.0
# How long requests under way may still take once the run is stopped.
_GRACE = 5.0
_AGAIN = "running it again continues safely"


async def replay(
    args: argparse.Namespace,
    timer: Timer | None = None,
    environ: Mapping[str, str] = os.environ,
    timeout: float = _TIMEOUT,
) -> int:
    """Run the command; the exit code."""
    timer = timer or Timer()
    progress = Progress(environ)
    with _stopping_on_interrupt(timer), contextlib.ExitStack() as stack:
        try:
            plan = options.plan(args)
            url = options.url(args.url, environ)
            token = options.token(args.token, environ)
            file = stack.enter_context(_open(args.file))
            identity = await identity_of(file, lambda: asyncio.sleep(0))
            rows = Rows(file, plan, args.identity or identity)
        except CommandProblem as problem:
            progress.say(f"replay: {problem}")
            return 2
        except FileProblem as problem:
            progress.say(f"replay: {args.file} {problem}")
            return 2

        tally, started, problem_line = Tally(progress), timer.now(), ""
        batches = Batches(rows, args.speed, tally, timer)
        try:
            async with Service(url, token, args.concurrency, timeout) as service:
                sender = Sender(service.post, url, tally, timer)
                await _run(batches, sender, args.concurrency, timer, progress)
        except FileProblem as problem:
            problem_line = f"{args.file} {problem}; {_corrected(rows)}"
        except ServiceProblem as problem:
            problem_line = str(problem)
            if tally.records:
                problem_line += f"; {tally.unknown:,} records unknown, the rest not sent; {_AGAIN}"
        progress.clear()
        complete = not (problem_line or timer.stop.is_set())
        if tally.records or not problem_line:
            end = summary(tally, rows.identity, timer.now() - started, complete)
            print(end.as_json() if args.json else end.as_text())
        if problem_line:
            progress.say(f"replay: {problem_line}")
            return 1
        if not complete:
            progress.say(f"replay: interrupted; {_AGAIN}")
            return 130
        if tally.rejected:
            progress.say(f"replay: {tally.rejected:,} records rejected; {_corrected(rows)}")
        return 0 if tally.lossless else 1


def _corrected(rows: Rows) -> str:
    return f"a corrected file continues this run with --identity {rows.identity}"


class Batches:
    """Groups rows into batches: whole rows, at most `BATCH` records, none before it is due."""

    def __init__(self, rows: Rows, speed: float | None, tally: Tally, timer: Timer) -> None:
        self._source, self._rows = rows, iter(rows)
        self._speed, self._tally, self._timer = speed, tally, timer
        self._lock = asyncio.Lock()
        self._first: tuple[float, float] | None = None
        self._held: Row | None = None

    @property
    def fraction_read(self) -> float:
        return self._source.fraction_read

    async def next(self) -> list[Record]:
        """The next batch, as soon as its first row is due; empty at the end or when stopped."""
        async with self._lock:
            batch: list[Record] = []
            while not self._timer.stop.is_set():
                row, self._held = self._held or next(self._rows, None), None
                if row is None:
                    return batch
                wait = self._until_due(row)
                if len(batch) + len(row.records) > BATCH or (batch and wait > 0):
                    self._held = row
                    return batch
                if wait > 0:
                    self._held = row
                    await self._timer.pause(wait)
                    continue
                batch += row.records
                self._count(row)
                if self._tally.rows % BATCH == 0:
                    await asyncio.sleep(0)  # a long stretch without records: Ctrl-C must get in
            return []

    def _until_due(self, row: Row) -> float:
        if self._speed is None or row.time is None:
            return 0.0
        now = self._timer.now()
        if self._first is None:
            self._first = (row.time, now)
        first_time, started = self._first
        return started + (row.time - first_time) / self._speed - now

    def _count(self, row: Row) -> None:
        self._tally.rows += 1
        self._tally.skipped += row.skipped
        for problem, count in row.problems:
            self._tally.reject(problem, count)


async def _run(
    batches: Batches, sender: Sender, concurrency: int, timer: Timer, progress: Progress
) -> None:
    """Send every batch, ``concurrency`` at once; the first problem ends the run and is raised."""

    async def work() -> None:
        try:
            while batch := await batches.next():
                await sender.send(batch)
                progress.show(timer.now(), batches.fraction_read, sender.tally)
        except BaseException:
            timer.stop.set()
            raise

    workers = [asyncio.create_task(work()) for _ in range(concurrency)]
    finished = asyncio.create_task(asyncio.wait(workers))
    stopped = asyncio.create_task(timer.stop.wait())
    await asyncio.wait({finished, stopped}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait(workers, timeout=_GRACE)
    for task in (*workers, finished, stopped):
        task.cancel()
    for result in await asyncio.gather(*workers, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


@contextlib.contextmanager
def _stopping_on_interrupt(timer: Timer) -> Iterator[None]:
    """The first Ctrl-C ends the run cleanly; a second one ends the process as usual."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        timer.stop.set()

    try:
        loop.add_signal_handler(signal.SIGINT, stop)
    except (NotImplementedError, RuntimeError, ValueError):  # not the main thread, or Windows
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _open(path: Path) -> BinaryIO:
    try:
        # Looked at before it is opened: opening a named pipe would wait for a writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise FileProblem("is not a regular file")
        return path.open("rb")
    except OSError as error:
        raise FileProblem(f"cannot be read: {error.strerror}") from None
