"""A restored database is the one that was backed up, and nothing is half restored."""

from __future__ import annotations

import pytest

from tests.backup.conftest import Operator

pytestmark = pytest.mark.usefixtures("used")


async def test_what_was_lost_is_back(operator: Operator) -> None:
    said = await operator.done("backup", "--to", operator.archive)
    print(said)
    assert operator.archive.stat().st_mode & 0o777 == 0o600
    assert await operator.sql("SELECT SUM(quantity)::INT FROM usage_records") == [6]
    await operator.sql("DELETE FROM usage_records")
    said = await operator.done("restore", operator.archive, "--replace")
    print(said)
    assert await operator.sql("SELECT SUM(quantity)::INT FROM usage_records") == [6]
    print(await operator.databases())
