"""Verifying the hash chain: every tampering is found, and nothing else."""

from __future__ import annotations

import pytest

from ledger import db
from ledger.drain import Drain
from ledger.seals import SealBroken, verify_seals
from tests.conftest import Service
from tests.ledger.stream import Partition


@pytest.fixture
async def sealed(partition: Partition, drain: Drain, connection: db.Connection) -> db.Connection:
    """A partition of three batches with 2, 3 and 1 records, and a damaged entry in between."""
    for entries in (2, 3, 1):
        for _ in range(entries):
            await partition.add()
        await partition.add_raw({"event": b"damaged"})
        await drain.run_once([0])
    return connection


async def test_an_untouched_chain_is_whole(sealed: db.Connection) -> None:
    assert await verify_seals(sealed) == 6


async def test_a_chain_of_real_records_is_whole(service: Service) -> None:
    for number, organization in enumerate([{}, {"organization_id": "clinic"}, {}]):
        body = {"user_id": f"user-{number}", "usage_type": "conversation_minutes"}
        metadata = {"feature": "notes"}
        said = {**body, **organization, "quantity": 1.25, "metadata": metadata}
        assert (await service.post("/usage", said))[0] == 201
    await service.drained()
    assert await verify_seals(service.sql) == 3


@pytest.mark.parametrize(
    ("tampering", "found"),
    [
        ("UPDATE usage_records SET quantity = 2 WHERE position = 2", "positions 1 to 2"),
        ("UPDATE usage_records SET plan_tier = 'x' WHERE position = 2", "positions 1 to 2"),
        ("DELETE FROM usage_records WHERE position = 2", "no record at position 2"),
        ("DELETE FROM usage_records WHERE position = 6", "no record at position 6"),
        ("DELETE FROM audit_seals WHERE first_position = 6", "no seal covers position 6"),
        ("DELETE FROM audit_seals; DELETE FROM usage_records", "newest seals are missing"),
        ("UPDATE stream_cursor SET audit_head = sha256('x')", "newest seals are missing"),
        ("UPDATE audit_seals SET previous = sha256('x') WHERE records = 2", "positions 1 to 2"),
        ("UPDATE audit_seals SET records = 3 WHERE records = 2", "positions 1 to 2"),
        ("UPDATE usage_records SET position = 100 WHERE position = 1", "no record at position 1"),
    ],
)
async def test_what_was_tampered_with_is_named(
    sealed: db.Connection, tampering: str, found: str
) -> None:
    await sealed.execute(tampering)
    with pytest.raises(SealBroken, match=f"partition 0: .*{found}"):
        await verify_seals(sealed)
