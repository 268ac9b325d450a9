"""Every command of docs/finance.md works as printed, and answers what is printed below it."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import cli
from ledger import logs
from tests.conftest import BASE, Service
from tests.docs.test_documents import without_curl
from tests.docs.test_subscriptions_document import is_told
from tests.invoices.conftest import Months

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "finance.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    command
    for block in BLOCKS
    for command in re.split(r"\n(?=finance |\./run )", block.replace("\\\n", " ").strip())
]
[SAVE] = [one for one in COMMANDS if " > plan.json" in one]
ASKED, RAISE = COMMANDS[: COMMANDS.index(SAVE)], COMMANDS[COMMANDS.index(SAVE) + 1 :]
ANSWERS = [msgspec.json.decode(one) for one in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]


class Finance:
    """The function `finance` of the documents, with values for the names that people fill in."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.names = {"API": f"{service.url}{BASE}"}

    async def __call__(self, command: str) -> Any:
        for name, value in self.names.items():
            command = command.replace(f"${name}", value)
        token = f"Authorization: {self.service.token('finance')['Authorization']}"
        headers = ["-H", token, "-H", "Content-Type: application/json"]
        words = ["curl", *headers, *shlex.split(command)[1:]]
        return msgspec.json.decode(await without_curl(self.service, words))


@pytest.fixture
async def finance(service: Service) -> Finance:
    months = Months(service, park_above=1_000_000)
    await months.create("ada", "professional")
    await months.use("ada", 100_400, idempotency_key="one")
    await months.end_of_period("ada")
    return Finance(service)


async def test_the_questions_are_answered_as_printed(finance: Finance) -> None:
    assert len(ASKED) == len(ANSWERS) == 4
    for command, told in zip(ASKED, ANSWERS, strict=True):
        real = await finance(command)
        assert is_told(told, real), (command, real)
        for one in real.get("data", ()):
            if "lines" in one:
                finance.names |= {"INVOICE": one["invoice_id"], "LINE": one["lines"][1]["line_id"]}
            else:
                finance.names["USAGE"] = one["usage_id"]
        if "net_quantity" in real:
            await finance.service.drained()


async def test_a_price_is_raised_as_printed(
    finance: Finance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = await finance(SAVE.removesuffix(" > plan.json"))
    del plan["version"]
    for price in plan["prices"]:
        price["unit_amount"] = "0.003"
    file = msgspec.json.encode(plan).decode()
    monkeypatch.setattr(logs, "silence", lambda: None)  # of a process of its own
    monkeypatch.setenv("DATABASE_URL", finance.service.settings.database_url)
    monkeypatch.setenv("BILLING_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    await asyncio.to_thread((tmp_path / "plan.json").write_text, file)
    simulate, *changes = RAISE
    capsys.readouterr()
    words = shlex.split(simulate)[1:]
    assert await asyncio.to_thread(cli.main, words) == 0
    assert " 0.60 " in capsys.readouterr().out  # 400 calls, at twice the price
    answers = [
        await finance(one.replace("-d @plan.json", f"-d {shlex.quote(file)}")) for one in changes
    ]
    assert [one.get("version") or one["to_version"] for one in answers] == [2, 2, 2]
    assert [one.get("preview") for one in answers] == [None, True, False]
