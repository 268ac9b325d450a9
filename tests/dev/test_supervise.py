"""Children that die are restarted, within bounds."""

from __future__ import annotations

import asyncio
import sys

import pytest

from gateway import supervise
from gateway.children import Child, StartError


class Script(Child):
    """A Python one-liner as a child."""

    name = "script"

    def __init__(self, code: str) -> None:
        super().__init__()
        self._code = code
        self.starts = 0
        self.started_again = asyncio.Event()

    async def start(self) -> None:
        self.starts += 1
        await self._launch([sys.executable, "-c", self._code])
        if self.starts > 1:
            self.started_again.set()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "_FIRST_PAUSE_S", 0.0)


async def test_a_child_that_keeps_dying_is_given_up(capfd: pytest.CaptureFixture[str]) -> None:
    child = Script("raise SystemExit(7)")
    await child.start()
    with pytest.raises(StartError, match="script ended 6 times in a minute, last by exit code 7"):
        await supervise.keep_alive([child])
    assert child.starts == 6
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "billing: script ended by exit code 7; starting it again in 0.0 s"


async def test_a_misconfigured_child_is_not_repeated() -> None:
    child = Script("raise SystemExit(2)")
    await child.start()
    with pytest.raises(StartError, match="refuses its configuration") as caught:
        await supervise.keep_alive([child])
    assert (child.starts, caught.value.exit_code) == (1, 2)


async def test_a_killed_child_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    child = Script("import time; time.sleep(60)")
    await child.start()

    async def kill_once() -> None:
        child.kill()
        await child.started_again.wait()
        raise StartError("enough")

    with pytest.raises(StartError, match="enough"):
        await supervise.keep_alive([child], kill_once())
    assert child.running
    await child.stop()
    assert "script ended by SIGKILL" in capfd.readouterr().err


async def test_a_child_that_ignores_the_stop_signal_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.children._STOP_TIMEOUT_S", 0.1)
    child = Script("import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)")
    await child.start()
    await child.stop()
    assert not child.running
