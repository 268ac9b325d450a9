from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator, Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import pytest

from gateway.replay.command import add_arguments, replay
from gateway.replay.send import Timer
from tests.replay.stand_in import FakeTimer, StandIn


@pytest.fixture
async def service() -> AsyncIterator[StandIn]:
    async with StandIn().serving() as stand_in:
        yield stand_in


@pytest.fixture
def csv_file(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(content: str | bytes, name: str = "usage.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


class Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(self.out, parse_float=Decimal)
        return summary


class Run(Protocol):
    async def __call__(
        self,
        path: Path,
        *options: str,
        timer: Timer | None = None,
        environ: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> Outcome: ...


@pytest.fixture
def run(service: StandIn, capsys: pytest.CaptureFixture[str]) -> Run:
    """``./run replay`` against the stand-in, with time that only passes in pauses."""

    async def call(
        path: Path,
        *options: str,
        timer: Timer | None = None,
        environ: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> Outcome:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        if "--url" not in options:
            options = (*options, "--url", service.url)
        args = parser.parse_args([str(path), *options])
        code = await replay(args, timer or FakeTimer(), environ or {}, timeout)
        return Outcome(code, *capsys.readouterr())

    return call
