"""`./run replay` against the real service: every unit once, however often it runs."""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.replay.command import add_arguments, replay
from ledger.domain.ids import dev_uuid
from tests.conftest import Service
from tests.flow.invariants import check
from tests.ledger.plans import allows, organization_on_plan, pool

CLINICS = {"ada": "north", "bob": "north", "cyd": "south", "dan": "", "eve": ""}
Sums = dict[tuple[str, str], Decimal]


@pytest.fixture
def usage_csv(tmp_path: Path) -> tuple[Path, Sums]:
    """A file of odd quantities, and what each user used of each type."""
    dice = random.Random(7)
    sums: Sums = defaultdict(Decimal)
    path = tmp_path / "usage.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["who", "clinic", "minutes", "tokens", "note"])
        for _ in range(400):
            user = dice.choice(list(CLINICS))
            minutes = Decimal(dice.randrange(0, 2000)) / 100
            tokens = dice.randrange(0, 3000)
            writer.writerow([user, CLINICS[user], minutes, tokens, "ignored"])
            sums[user, "conversation_minutes"] += minutes
            sums[user, "ai_tokens"] += tokens
            sums[user, "api_calls"] += 1
    return path, sums


async def run(
    service: Service, path: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    columns = ["--user-column", "who", "--organization-column", "clinic"]
    maps = ["minutes=conversation_minutes", "tokens=ai_tokens", ":row=api_calls"]
    options = [part for one in maps for part in ("--map", one)]
    words = [str(path), *columns, *options, "--url", service.url, "--json", *more]
    capsys.readouterr()
    assert await replay(parser.parse_args(words), environ={}) == 0
    found: dict[str, Any] = json.loads(
        capsys.readouterr().out.splitlines()[-1], parse_float=Decimal
    )
    return found


async def test_a_replayed_file_is_in_the_ledger_to_the_last_unit(
    service: Service, usage_csv: tuple[Path, Sums], capsys: pytest.CaptureFixture[str]
) -> None:
    path, sums = usage_csv
    for clinic in ("north", "south"):
        types = ("conversation_minutes", "ai_tokens", "api_calls")
        plan = [make(one, None) for one in types for make in (allows, pool)]
        await organization_on_plan(service.sql, clinic, *plan)
    first = await run(service, path, capsys)
    assert (first["denied"], first["rejected"], first["unknown"]) == (0, 0, 0)
    assert first["accepted"] == first["records"]
    await service.drained()
    again = await run(service, path, capsys, "--concurrency", "8")
    assert (again["accepted"], again["replayed"]) == (0, first["records"])
    await service.drained()
    await check(service)

    rows = await service.sql.fetch(
        "SELECT user_id, usage_type, SUM(quantity) AS total FROM usage_records GROUP BY 1, 2"
    )
    in_ledger = {(row["user_id"], row["usage_type"]): row["total"] for row in rows}
    assert in_ledger == {(dev_uuid(user), kind): total for (user, kind), total in sums.items()}
    rows = await service.sql.fetch(
        "SELECT organization_id, usage_type, SUM(quantity) AS total FROM usage_records"
        " WHERE organization_id IS NOT NULL GROUP BY 1, 2"
    )
    by_clinic: Sums = defaultdict(Decimal)
    for (user, kind), total in sums.items():
        if CLINICS[user]:
            by_clinic[CLINICS[user], kind] += total
    assert {(row["organization_id"], row["usage_type"]): row["total"] for row in rows} == {
        (dev_uuid(clinic), kind): total for (clinic, kind), total in by_clinic.items()
    }
    for user, clinic in CLINICS.items():
        query = f"?organization_id={clinic}" if clinic else ""
        url = f"{service.url}/api/v1/billing/quota/{user}{query}"
        async with service.http.get(url) as response:
            quota = json.loads(await response.read(), parse_float=Decimal)
        for one in quota["quotas"]:
            who = sums[user, one["usage_type"]]
            if one["scope"] == "organization":
                who = by_clinic[clinic, one["usage_type"]]
            assert one["used"] == who, (user, one["usage_type"], one["scope"])


async def test_a_replay_over_the_quota_is_refused_exactly_there(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "over.csv"
    rows = "".join("dan,,10.01,0,x\n" for _ in range(200))
    path.write_text("who,clinic,minutes,tokens,note\n" + rows)
    told = await run(service, path, capsys)
    minutes = told["quantities"]["conversation_minutes"]
    assert (Decimal(minutes["accepted"]), Decimal(minutes["denied"])) == (
        Decimal("1491.49"),
        Decimal("510.51"),
    )
    await service.drained()
    await check(service)
    kept = "SELECT SUM(quantity) FROM usage_records WHERE usage_type = 'conversation_minutes'"
    assert await service.sql.fetchval(kept) == Decimal("1491.49")
