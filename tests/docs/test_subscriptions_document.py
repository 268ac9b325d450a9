"""Every example of docs/subscriptions.md and docs/invoices.md does and answers what it says."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.domain.overrides import Overrides
from ledger.domain.subscription import LONG_AGO
from ledger.rollover import LATEST
from tests.conftest import BASE, Service
from tests.dev.processes import environment
from tests.docs.test_documents import without_curl
from tests.invoices.conftest import GRACE, TYPE, Months
from tests.ledger.plans import add_plan, allows

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = "".join((DOCS / f"{name}.md").read_text() for name in ("subscriptions", "invoices"))
SHELL = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
PROLOGUE = next(block for block in SHELL if "finance()" in block)
COMMANDS = [
    command
    for block in SHELL
    for command in re.split(r"\n(?=finance )", block.strip())
    if command.startswith("finance ")
]
JSON = [msgspec.json.decode(one) for one in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]
BILLED = [one for one in JSON if "invoices" in one]
LEFT_OVER = [one for one in JSON if "rollover" in one]
ANSWERS = [one for one in JSON if one not in BILLED + LEFT_OVER]


def is_told(told: Any, real: Any) -> bool:
    """Whether an answer is as the page tells it: fields may be left out, `…` is anything."""
    if isinstance(told, dict):
        return all(name in real and is_told(one, real[name]) for name, one in told.items())
    if isinstance(told, list):
        return len(told) == len(real) and all(map(is_told, told, real))
    return told == "…" or bool(told == real)


async def in_a_shell(service: Service, folder: Path) -> list[bytes]:
    """All commands in one shell, as printed, in a folder with `run` in it."""
    (folder / "run").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m gateway.cli "$@"\n')
    (folder / "run").chmod(0o755)
    script = "\n".join([PROLOGUE, *COMMANDS]).replace("http://localhost:8081", service.url)
    process = await asyncio.create_subprocess_exec(
        *("sh", "-eu", "-c", script),
        cwd=folder,
        env=environment(service.settings.data_dir),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.splitlines()


async def by_hand(service: Service) -> list[bytes]:
    """The same on a bare machine without curl."""
    token = f"Authorization: {service.token('finance')['Authorization']}"
    headers = ["-H", token, "-H", "Content-Type: application/json"]
    said = []
    for command in COMMANDS:
        here = command.replace("$API", f"{service.url}{BASE}").replace("\\\n", " ")
        said.append(await without_curl(service, ["curl", *headers, *shlex.split(here)[1:]]))
    return said


async def test_the_commands_answer_what_is_printed_below_them(
    service: Service, tmp_path: Path
) -> None:
    said = await (in_a_shell(service, tmp_path) if shutil.which("curl") else by_hand(service))
    assert len(said) == len(COMMANDS) == len(ANSWERS)
    for command, real, told in zip(COMMANDS, said, ANSWERS, strict=True):
        assert is_told(told, msgspec.json.decode(real)), (command, real)


@pytest.mark.parametrize("example", BILLED)
async def test_an_example_of_billing_has_the_invoices_it_shows(
    service: Service, example: dict[str, Any]
) -> None:
    months = Months(service, park_above=1_000_000)
    said = dict(example["subscribe"])
    if "overrides" in said:
        said["overrides"] = msgspec.convert(said["overrides"], Overrides)
    await months.create("ada", said.pop("plan_tier"), **said)
    await months.use("ada", example["used"])
    end = await months.end_of_period("ada")
    if example["late"]:
        await months.use("ada", example["late"], at=end - GRACE)
    await months.end_of_period("ada")
    assert [
        [list(line) for line in await months.lines(one)] for one in await months.invoices()
    ] == example["invoices"]


@pytest.mark.parametrize("example", LEFT_OVER)
async def test_an_example_of_what_is_left_over_has_the_limits_it_shows(
    service: Service, example: dict[str, Any]
) -> None:
    months = Months(service, park_above=1_000_000)
    rollover = {"max": example["rollover"]["max"]}
    allowed = allows(TYPE, example["rollover"]["limit"]) | {"rollover": rollover}
    await add_plan(service.sql, "rolling", allowed)
    await months.create("ada", "rolling")
    limits = []
    for used in example["used"]:
        if used:
            await months.use("ada", used)
        await months.end_of_period("ada")
        _, said, _ = await service.get("/quota/ada")
        limits += [one["limit"] for one in said["quotas"]]
    assert limits == example["limit"]


def test_the_pages_name_the_days_of_the_code() -> None:
    assert f"up to {LONG_AGO.days} days back" in TEXT
    assert f"{LATEST.days} days after its end" in TEXT
