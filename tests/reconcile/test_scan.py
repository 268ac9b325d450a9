"""Quotas that the scan found, and who takes them."""

from __future__ import annotations

import pytest

from ledger.domain.ids import dev_uuid
from ledger.reconcile import scan
from ledger.reconcile.scan import QuotaScan
from lua import keys
from tests.reconcile.conftest import Compared


async def test_quotas_that_nobody_takes_do_not_gather_without_end(
    compared: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        await compared.record(f"user {number}", 1, organization_id="acme")
    monkeypatch.setattr(scan, "WAITING", 5)
    searched = QuotaScan(compared.service.servers)
    acme = keys.subject_of(f"org:{dev_uuid('acme')}")
    partition = keys.partition_of(acme, compared.service.settings.partitions)
    for _ in range(3):
        while not await searched.step():
            pass
    assert len(searched.take(partition)) == 5
    monkeypatch.setattr(scan, "WAITING", 50)
    while not await searched.step():
        pass
    assert len(searched.take(partition)) == 21
