"""What docs/audit.md says of the hashes is enough to recompute them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway import cli
from gateway.denials import CALLERS, KINDS, WINDOW_S
from gateway.operators import audit
from gateway.operators.session import DONE
from ledger import db, logs
from ledger.audit.sealing import Sealer
from tests.conftest import Service

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "audit.md").read_text()
[SNIPPET] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
USAGE = {"user_id": "ada", "usage_type": "conversation_minutes", "quantity": 15.5}


async def test_an_event_is_recomputed_by_what_is_printed(service: Service) -> None:
    plan = {"decimal_places": 0, "description": "Zoë's"}
    path = f"{service.url}/api/v1/billing/usage-types/visits"
    async with service.http.put(path, json=plan, headers=service.token("admin")) as response:
        assert response.status == 200
    assert await Sealer(service.sql).run_once() == 1
    printed: dict[str, Any] = {}
    exec(SNIPPET, printed)  # noqa: S102 - our own page
    _, said, _ = await service.get("/audit/events", headers=service.token("finance"))
    assert [printed["recomputed"](one) == one["hash"] for one in said["data"]] == [True]


def columns() -> list[str]:
    """Of a record, in the order that the page names them."""
    [listed] = re.findall(r"for each record in order: (.*?)\n\n", PAGE, re.DOTALL)
    return re.findall(r"`(\w+)`", listed)


def packed(name: str, row: Any) -> Any:
    """A column as the page says that it is hashed."""
    value = row[name]
    if value is None:
        return None
    if name in ("quantity", "used_after", "pool_used_after", "quota_remaining"):
        return int(value * 100)
    if name == "billing_period":
        return str(value)
    if name == "metadata":
        return sorted(msgspec.json.decode(value).items())
    if name.endswith("_at") or name in ("quota_period", "pool_period"):
        return round(value.timestamp() * 1000)
    if name.endswith("_id") and name != "stream_id":
        return value.bytes
    return value


async def test_a_seal_is_recomputed_by_what_is_listed(service: Service) -> None:
    metadata = {"feature": "notes", "department": "sales"}
    for more in ({"idempotency_key": "a"}, {"metadata": metadata}):
        assert (await service.post("/usage", {**USAGE, **more}))[0] == 201
    await service.drained()
    seals = await service.sql.fetch("SELECT * FROM audit_seals ORDER BY last_position")
    previous = hashlib.sha256(b"").digest()
    for seal in seals:
        rows = await service.sql.fetch(
            "SELECT * FROM usage_records WHERE position BETWEEN $1 AND $2 ORDER BY position",
            seal["first_position"],
            seal["last_position"],
        )
        begin = ["billing-seal", 2, f"usage:{seal['partition']}", seal["first_position"]]
        records = [
            msgspec.msgpack.encode([packed(name, row) for name in columns()]) for row in rows
        ]
        said = [msgspec.msgpack.encode([*begin, seal["records"], previous]), *records]
        previous = hashlib.sha256(b"".join(said)).digest()
        assert seal["head"] == previous
        assert seal["marks"] == b"".join(hashlib.sha256(one).digest()[:8] for one in records)
    assert seals


async def test_every_column_of_a_record_is_covered(connection: db.Connection) -> None:
    found = await connection.fetch(
        "SELECT column_name AS name FROM information_schema.columns"
        " WHERE table_name = 'usage_records'"
    )
    place = {"partition", "position"}  # of the chain and the seal
    assert {row["name"] for row in found} == set(columns()) | place


async def test_the_commands_of_the_page_run(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(logs, "silence", lambda: None)  # of a process of its own
    monkeypatch.chdir(tmp_path)
    [shell] = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in shell.strip().splitlines():
        command, _, target = line.partition("#")[0].partition(">")
        words = command.split()[1:]
        assert await audit.audit(cli._parser("audit").parse_args(words), service.settings) == DONE
        said = capsys.readouterr().out
        if target:
            Path(target.strip()).write_text(said)


def test_the_bound_of_denials_is_that_of_the_code() -> None:
    most = CALLERS * (KINDS + 1) + 1
    assert f"at most {most} events in ten\nseconds" in PAGE
    assert WINDOW_S == 10
