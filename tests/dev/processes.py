"""Runs the command line as a process of its own, as a shell does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_DEADLINE_S = 30.0
_OURS = ("REDIS_URL", "DATABASE_URL", "PORT", "HOST", "BILLING_", "DURABILITY", "AUTH_")


def environment(data_dir: Path, **variables: str) -> dict[str, str]:
    """The environment of a command, without what this machine's own shell has set."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**outside, "PYTHONPATH": str(ROOT), "BILLING_DATA_DIR": str(data_dir), **variables}


def command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "gateway.cli", *words]


def call(
    *words: str, environ: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        command(*words), env=environ, cwd=cwd, capture_output=True, text=True, timeout=_DEADLINE_S
    )


class Supervisor:
    """A `./run ...` in the foreground of another shell."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def read_until(self, start: str) -> str:
        """The first line of its output that starts so; fails if it ends without one."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(start):
                return line.strip()
        raise AssertionError(f"it ended with {self._process.wait()} and never said {start!r}")

    def exports(self) -> dict[str, str]:
        """The variables that `infrastructure` prints."""
        words = self.read_until("export ").split()[1:]
        return {
            name: value.strip("'") for name, _, value in (word.partition("=") for word in words)
        }

    def end(self, number: signal.Signals) -> int:
        """Sends a signal and waits for the exit code."""
        self._process.send_signal(number)
        return self._process.wait(timeout=_DEADLINE_S)


@contextmanager
def supervisor(*words: str, environ: Mapping[str, str]) -> Iterator[Supervisor]:
    """Starts a command that stays; it is killed at the end if it still runs."""
    with subprocess.Popen(
        command(*words), env=environ, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Supervisor(process)
        finally:
            process.kill()


def eventually(condition: Callable[[], bool], timeout: float = _DEADLINE_S) -> None:
    """Waits for a condition; fails at the deadline."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


def children(pid: int) -> dict[int, str]:
    """The process ids and command lines of the children of a process."""
    pids = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    lines = {child: _command_line(child) for child in pids}
    return {child: line for child, line in lines.items() if line is not None}


def _command_line(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):  # it ended since it was listed
        return None


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
