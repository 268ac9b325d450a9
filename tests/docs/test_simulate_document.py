"""The example of docs/simulate.md is what the product makes of it."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path

import msgspec
import pytest

from gateway import cli
from ledger import logs
from tests.conftest import Service
from tests.docs.test_subscriptions_document import is_told

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "simulate.md").read_text()
PLAN, TOLD = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
[COMMAND] = re.findall(r"^\./run (simulate .*)$", TEXT, re.M)


async def test_the_command_answers_what_is_printed_below_it(
    service: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    body = {"user_id": "ada", "plan_tier": "professional"}
    await service.post("/subscriptions", body, headers=service.token("finance"))
    await service.post("/usage", {"user_id": "ada", "usage_type": "api_calls", "quantity": 100400})
    await service.drained()
    monkeypatch.setattr(logs, "silence", lambda: None)  # of a process of its own
    monkeypatch.setenv("DATABASE_URL", service.settings.database_url)
    monkeypatch.setenv("BILLING_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    await asyncio.to_thread((tmp_path / "starter.json").write_text, PLAN)
    capsys.readouterr()
    assert await asyncio.to_thread(cli.main, [*shlex.split(COMMAND), "--json"]) == 0
    assert is_told(msgspec.json.decode(TOLD), msgspec.json.decode(capsys.readouterr().out))
    assert await asyncio.to_thread(cli.main, shlex.split(COMMAND)) == 0
    assert "551.00" in capsys.readouterr().out
