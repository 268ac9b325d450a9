"""The audit trail over HTTP and on the command line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joserfc.jwk import ECKey

from gateway import cli
from gateway.operators import audit as command
from gateway.operators.session import DONE, FOUND, WRONG_USAGE
from ledger import logs
from ledger.audit import heads
from ledger.settings import Secret, Settings
from tests.audit.conftest import EVENTS, Trail


async def asked(trail: Trail, path: str, role: Any = "finance") -> tuple[int, Any]:
    status, said, _ = await trail.service.get(path, headers=trail.service.token(role, user="a"))
    return status, said


@pytest.mark.parametrize("path", ["/audit/events", "/audit/verify"])
async def test_only_finance_and_admins_may_read_it(furnished: Trail, path: str) -> None:
    for role in ("user", "org_admin", "service"):
        assert (await asked(furnished, path, role))[0] == 403
    assert (await furnished.service.get(path))[0] == 401
    for role in ("finance", "admin"):
        assert (await asked(furnished, path, role))[0] == 200


async def test_the_list_is_paged_and_its_hashes_can_be_recomputed(furnished: Trail) -> None:
    found, after = [], ""
    while True:
        _, page = await asked(furnished, f"/audit/events?limit=4&actor=olga{after}")
        found += page["data"]
        if not page["has_more"]:
            break
        after = f"&starting_after={page['data'][-1]['event_id']}"
    assert len({one["event_id"] for one in found}) == len(found) == EVENTS
    for one in found:
        said = [
            "billing-audit", one["version"], one["chain"], one["sequence"], one["previous"],
            *(one[name] for name in (
                "event_id", "event_type", "actor", "user_id", "organization_id", "occurred_at",
                "noted_at", "details",
            )),
        ]  # fmt: skip
        text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert one["hash"] == hashlib.sha256(text.encode()).hexdigest()


async def test_the_list_has_filters(furnished: Trail) -> None:
    await furnished.note("usage_type_changed", number=1)
    for query, events in (
        ("event_type=usage_type_changed", 1),
        ("event_type=plan_changed", EVENTS),
        ("actor=nobody", 0),
        ("user_id=ada", 0),
        ("organization_id=acme", 0),
        ("actor=olga&from=2026-11-23T10:00:00Z", EVENTS + 1),
        ("actor=olga&to=2026-11-23T10:00:00Z", 0),
    ):
        status, page = await asked(furnished, f"/audit/events?{query}")
        assert (status, len(page["data"])) == (200, events), query
    [unsealed] = (await asked(furnished, "/audit/events?event_type=usage_type_changed"))[1]["data"]
    assert [unsealed[name] for name in ("sequence", "version", "previous", "hash")] == [None] * 4
    await furnished.sql.execute("DELETE FROM audit_events WHERE sequence IS NULL")


@pytest.mark.parametrize(
    "query",
    [
        "events?limit=0", "events?event_type=A", "events?from=yesterday", "events?unknown=1",
        "events?starting_after=00000000-0000-0000-0000-000000000000", "verify?chain=other",
        "verify?limit=10001", "events?from=0001-01-01T00:00:00%2B23:00",
    ],
)  # fmt: skip
async def test_a_query_that_means_nothing_is_refused(furnished: Trail, query: str) -> None:
    assert (await asked(furnished, f"/audit/{query}"))[0] == 400


async def test_the_newest_part_of_each_chain_is_verified(furnished: Trail) -> None:
    _, said = await asked(furnished, "/audit/verify")
    assert (said["intact"], said["findings"]) == (True, [])
    assert {one["chain"] for one in said["chains"]} == {
        "control",
        *(f"usage:{n}" for n in range(4)),
    }
    assert all(one["whole"] for one in said["chains"])
    _, part = await asked(furnished, "/audit/verify?limit=2&chain=control")
    [one] = part["chains"]
    assert (one["checked_from"], one["checked_through"], one["rows"]) == (EVENTS - 1, EVENTS, 2)
    assert not one["whole"]
    partition = await furnished.partition()
    _, part = await asked(furnished, f"/audit/verify?limit=2&chain=usage:{partition}")
    [one] = part["chains"]
    assert (one["checked_from"], one["checked_through"], one["rows"]) == (4, 6, 3)
    assert (await asked(furnished, "/audit/verify?chain=usage:99"))[0] == 404


async def test_what_was_tampered_with_is_named_over_http(furnished: Trail) -> None:
    partition = await furnished.partition()
    place = f"WHERE partition = {partition} AND position = 5"
    was = await furnished.sql.fetchval(f"SELECT usage_id FROM usage_records {place}")  # noqa: S608
    await furnished.sql.execute(f"UPDATE usage_records SET quantity = quantity + 1 {place}")  # noqa: S608
    try:
        _, said = await asked(furnished, "/audit/verify?limit=2")
    finally:
        await furnished.sql.execute(f"UPDATE usage_records SET quantity = quantity - 1 {place}")  # noqa: S608
    assert not said["intact"]
    [found] = said["findings"]
    assert (found["chain"], found["sequence"], found["id"]) == (f"usage:{partition}", 5, str(was))


async def ran(settings: Settings, *words: str) -> int:
    args = cli._parser("audit").parse_args(["audit", *words])
    return await command.audit(args, settings)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "silence", lambda: None)  # of a process of its own


async def test_a_head_is_printed_and_verified(
    furnished: Trail, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = furnished.service.settings
    assert await ran(settings, "head") == DONE
    head = tmp_path / "head"
    head.write_text(capsys.readouterr().out)
    assert await ran(settings, "verify", "--head", str(head)) == DONE
    assert "control      holds" in capsys.readouterr().out
    key = heads.signing_key(settings)
    assert key is not None
    public = tmp_path / "public.pem"
    public.write_bytes(key.as_pem(private=False))
    elsewhere = msgspec.structs.replace(settings, data_dir=tmp_path / "elsewhere")
    words = "verify", "--head", str(head), "--key", str(public)
    assert await ran(elsewhere, *words) == DONE
    assert await ran(elsewhere, *words[:3]) == WRONG_USAGE, "another key"


async def test_what_does_not_fit_is_printed_and_the_exit_code_says_so(
    furnished: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    await furnished.sql.execute("UPDATE audit_events SET actor = 'mallory' WHERE sequence = 3")
    try:
        assert await ran(furnished.service.settings, "verify", "--json") == FOUND
        said = json.loads(capsys.readouterr().out)
        assert await ran(furnished.service.settings, "verify") == FOUND
    finally:
        await furnished.sql.execute("UPDATE audit_events SET actor = 'olga' WHERE sequence = 3")
    [finding] = said["findings"]
    assert (finding["chain"], finding["sequence"]) == ("control", 3)
    assert f"control 3 ({finding['id']}): was changed" in capsys.readouterr().out


async def test_what_cannot_be_used_is_one_line(
    furnished: Trail, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = furnished.service.settings
    other = tmp_path / "other"
    other.write_text("SECRET")
    for words, line in (
        (["--head", str(tmp_path / "nothing")], "--head: the file cannot be read"),
        (["--head", str(other)], "--head: is not a head that this key has signed"),
        (["--head", str(other), "--key", str(other)], "--key: the file holds no P-256 key in PEM"),
    ):
        assert await ran(settings, "verify", *words) == WRONG_USAGE
        assert capsys.readouterr().err == f"billing: {line}\n"
    production = msgspec.structs.replace(settings, environment="production")
    assert await ran(production, "head") == WRONG_USAGE
    assert "AUDIT_SIGNING_KEY" in capsys.readouterr().err
    given = ECKey.generate_key("P-256").as_pem(private=True).decode()
    with_key = msgspec.structs.replace(production, audit_signing_key=Secret(given))
    assert await ran(with_key, "head") == DONE
