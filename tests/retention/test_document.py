"""Every command of docs/retention.md does what the page says, in its order."""

from __future__ import annotations

import re
import shlex

import pytest

from gateway.dev.servers import Valkey
from ledger.domain.organization import RETENTION_YEARS
from ledger.domain.retention import BOOKS_AMOUNT, BOOKS_CURRENCY
from tests.backup.conftest import Operator
from tests.dev.processes import ROOT
from tests.retention.conftest import Past

TEXT = (ROOT / "docs" / "retention.md").read_text()
COMMANDS = [
    line.removeprefix("./run ")
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]


async def test_the_commands_work_as_printed(
    past: Past, operator: Operator, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.data_dir /= ".data"  # as without BILLING_DATA_DIR
    monkeypatch.chdir(operator.data_dir.parent)
    assert len(COMMANDS) == 6
    for command in COMMANDS:
        assert await operator.done(*shlex.split(command), REDIS_URL=valkey.url)
    assert await past.months() == []
    assert (operator.data_dir.parent / "january" / "month.jsonl").read_text().count("\n") == 4


def test_the_page_has_the_years_and_the_amount_of_the_code() -> None:
    for name, years in RETENTION_YEARS.items():
        assert f"| `{name}` | {years} years |" in TEXT
    assert f"{BOOKS_AMOUNT:,} {BOOKS_CURRENCY}" in TEXT
