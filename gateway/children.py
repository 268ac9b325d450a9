"""Child processes that never outlive us: started, watched and stopped in one way."""

from __future__ import annotations

import asyncio
import ctypes
import os
import pwd
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_STOP_TIMEOUT_S = 25.0  # longer than the gateway's own 20 s for requests still running


class StartError(Exception):
    """Something does not start, or keeps dying; the message names it and the cause."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class Child(ABC):
    """One child process. Subclasses say how to launch it and when it is ready."""

    name: str
    vital = True  # whether everything ends when it keeps dying
    stop_signal = signal.SIGTERM
    # What the kernel sends when we die without stopping it.
    orphan_signal = signal.SIGKILL

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process id while it runs."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @abstractmethod
    async def start(self) -> None:
        """Starts the process and returns when it is ready. Raises `StartError`."""

    async def wait(self) -> int:
        """The exit code once it has ended; negative for a signal, as in `subprocess`."""
        return 0 if self._process is None else await self._process.wait()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def stop(self) -> None:
        """Ends the process in order; SIGKILL if it takes too long."""
        self.kill(self.stop_signal)
        try:
            await asyncio.wait_for(self.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            self.kill()
            await self.wait()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal, by default the one that no process can prepare for."""
        if self.running:
            assert self._process is not None
            self._process.send_signal(number)

    async def _launch(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        output: int | None = None,
        user: str | None = None,
        pass_fds: Sequence[int] = (),
    ) -> asyncio.subprocess.Process:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=cwd,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=None if output is None else asyncio.subprocess.STDOUT,
                # Ctrl-C in a terminal reaches us alone, so that we stop children in order.
                start_new_session=True,
                pass_fds=pass_fds,
                preexec_fn=_before_exec(self.orphan_signal, user),
            )
        except OSError as error:
            raise StartError(f"{self.name} does not start: {error}") from None
        return self._process


def _before_exec(orphan_signal: signal.Signals, user: str | None) -> Callable[[], None]:
    """Runs in the child: takes the user's identity, then (Linux) ties its life to ours.

    Done by hand because not every event loop passes `user=` on, and because the tie has to come
    after the change of user, which would undo it.
    """
    identity = pwd.getpwnam(user) if user else None
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
    parent = os.getpid()

    def prepare() -> None:
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_DFL)  # ours would swallow a stop that comes before exec
        if identity is not None:
            os.setgroups([])
            os.setgid(identity.pw_gid)
            os.setuid(identity.pw_uid)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(orphan_signal))
            if os.getppid() != parent:  # we died before the tie was there
                os._exit(1)

    return prepare


def last_line(path: Path) -> str:
    """The last line of a child's log: its own words for why it ended."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
