"""What comparing counters asks of Redis."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.domain.ids import dev_uuid
from ledger.reconcile import counters
from ledger.reconcile.counters import Counters
from lua import keys
from tests.reconcile.conftest import Compared


async def test_what_is_not_drained_is_read_once_however_many_quotas_are_compared(
    compared: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "CHUNK", 1)
    monkeypatch.setattr(counters, "PAGE", 2)
    for _ in range(2):
        for user in ("ada", "bob", "carl"):
            await compared.record(user, 1, organization_id="acme")
    scripts, reads = compared.service.scripts, []
    read = scripts.read

    async def counted(partition: int, *, after: str, count: int) -> Any:
        reads.append(after)
        return await read(partition, after=after, count=count)

    monkeypatch.setattr(scripts, "read", counted)
    who = keys.subject_of(f"org:{dev_uuid('acme')}:user:{dev_uuid('ada')}")
    partition = keys.partition_of(who, compared.service.settings.partitions)
    subjects = [
        f"org:{dev_uuid('acme')}",
        *(f"org:{dev_uuid('acme')}:user:{dev_uuid(user)}" for user in ("ada", "bob", "carl")),
    ]
    compare = Counters(compared.sql, scripts).compare
    found = [(count, differences) async for count, differences in compare(partition, subjects)]
    assert found == [(4, [])] * 4
    assert len(reads) == len(set(reads)) == 4  # six entries by two, and none after them
    await compared.record("ada", 1, organization_id="acme")
    await compared.service.drained()
    await compared.record("ada", 1, organization_id="acme")
    assert await compared.found() == []
