"""`./run reconcile` and `./run recalculate`, as an operator calls them."""

from __future__ import annotations

import json
import os

import pytest

from gateway.cli import _parser
from gateway.environment import of_service
from gateway.operators import counts, session
from ledger import logs
from ledger.domain.ids import dev_uuid
from ledger.settings import Settings
from tests.ledger.plans import allows, on_plan
from tests.reconcile.conftest import Compared
from tests.reconcile.test_reconcile import add_to_counter, quota_of


@pytest.fixture
def environ(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "silence", lambda: None)  # of a process of its own
    for name, value in {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "PARTITIONS": str(settings.partitions),
    }.items():
        monkeypatch.setenv(name, value)


async def run(*words: str) -> int:
    args = _parser(words[0]).parse_args(words)
    work = {"reconcile": counts.reconcile, "recalculate": counts.recalculate}[words[0]]
    return await work(args, of_service(os.environ))


async def test_reconcile_says_what_holds(
    compared: Compared, environ: None, capsys: pytest.CaptureFixture[str]
) -> None:
    await on_plan(compared.sql, "ada", allows("api_calls", "20"))
    await compared.some()
    await compared.service.drained()
    capsys.readouterr()
    assert await run("reconcile") == session.DONE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["I2", "I3", "I4", "I5", "I6", "I7", "I9"]
    verdicts = {line.split()[0]: "holds" in line for line in lines}
    assert verdicts.pop("I7") is False  # nothing was invoiced yet
    assert "nothing to compare" in lines[5]
    assert all(verdicts.values())


async def test_reconcile_says_what_does_not_in_text_and_json_and_repairs_when_told_to(
    compared: Compared, environ: None, capsys: pytest.CaptureFixture[str]
) -> None:
    await compared.some()
    await add_to_counter(compared, quota_of(compared, "ada"), 1)
    assert await run("reconcile") == session.FOUND
    assert "Redis says 7 units, the ledger 6" in capsys.readouterr().out
    assert await run("reconcile", "--json") == session.FOUND
    [finding] = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["invariant"], finding.get("repaired", False)) == ("I3", False)
    assert await run("reconcile", "--repair") == session.FOUND
    assert "(repaired)" in capsys.readouterr().out
    assert await run("reconcile") == session.DONE


async def test_reconcile_says_when_it_could_not_compare(
    compared: Compared, environ: None, capsys: pytest.CaptureFixture[str]
) -> None:
    await compared.some()
    for key in await compared.service.redis.run("KEYS", "meta:*"):
        await compared.service.redis.run("HSET", key, "replid", "f" * 40)
    assert await run("reconcile") == session.FAILED
    assert "not compared: partition" in capsys.readouterr().out


async def test_recalculate_takes_a_readable_name_in_dev_and_says_what_it_did(
    compared: Compared, environ: None, capsys: pytest.CaptureFixture[str]
) -> None:
    await compared.some()
    await compared.service.drained()
    await add_to_counter(compared, quota_of(compared, "ada"), 1)
    assert await run("recalculate", "ada", "--actor", "me") == session.DONE
    said = capsys.readouterr().out
    assert "did not agree: user:" in said
    assert f"recalculated: user:{dev_uuid('ada')}\n" in said
    assert await run("recalculate", "nobody") == session.FAILED
    assert "nothing is counted under" in capsys.readouterr().err


async def test_servers_that_do_not_answer_are_one_line(
    environ: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    assert await run("reconcile") == session.FAILED
    assert "no answer from Postgres" in capsys.readouterr().err
