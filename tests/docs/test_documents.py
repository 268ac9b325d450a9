"""Every command and statement in the documents is run as printed, against a running service."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shlex
import shutil
from pathlib import Path

import msgspec
import pytest

from gateway import cli, metrics
from gateway.operators import counts, session
from ledger import logs, settings
from tests.conftest import Service
from tests.ledger.plans import allows, organization_on_plan

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
CURLS = [
    (path.name, block)
    for path in DOCUMENTS
    for fence in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)
    for block in re.split(r"\n(?=curl)", fence.strip())
    if block.startswith("curl")
]
OPERATIONS = [
    (path.name, command)
    for path in DOCUMENTS
    for command in re.findall(r"^ *\./run ((?:reconcile|recalculate)\b.*)$", path.read_text(), re.M)
]
QUERIES = [
    (path.name, query)
    for path in DOCUMENTS
    for query in re.findall(r"```sql\n(.*?)```", path.read_text(), re.DOTALL)
]


async def without_curl(service: Service, words: list[str]) -> bytes:
    """What curl would do; a bare machine has none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("curl")
    parser.add_argument("-X", dest="method", default="GET")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data")
    parser.add_argument("url")
    args = parser.parse_intermixed_args(words)
    headers = dict(line.split(": ", 1) for line in args.headers)
    request = service.http.request(args.method, args.url, headers=headers, data=args.data)
    async with request as response:
        assert response.ok, await response.read()
        return await response.read()


@pytest.mark.parametrize(("document", "command"), CURLS)
async def test_a_curl_in_the_documents_works_as_printed(
    service: Service, document: str, command: str
) -> None:
    here = command.replace("http://localhost:8081", service.url)
    assert here != command
    if shutil.which("curl"):
        process = await asyncio.create_subprocess_shell(
            f"{here} --silent --fail-with-body", stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said
    else:
        said = await without_curl(service, shlex.split(here.replace("\\\n", " ")))
    answer = msgspec.json.decode(said)
    assert {"usage_id", "quotas", "data"} & set(answer)


@pytest.mark.parametrize(("document", "command"), OPERATIONS)
async def test_an_operators_command_in_the_documents_works_as_printed(
    service: Service, monkeypatch: pytest.MonkeyPatch, document: str, command: str
) -> None:
    monkeypatch.setattr(logs, "silence", lambda: None)  # of a process of its own
    body = {"user_id": "test-user", "usage_type": "api_calls", "quantity": 3}
    await service.post("/usage", body)
    await service.drained()
    name, *words = shlex.split(command)
    args = cli._parser(name).parse_args([name, *words])
    work = {"reconcile": counts.reconcile, "recalculate": counts.recalculate}[name]
    assert await work(args, service.settings) == session.DONE


@pytest.mark.parametrize(("document", "query"), QUERIES)
async def test_a_query_in_the_documents_runs_and_shows_the_usage(
    service: Service, document: str, query: str
) -> None:
    await organization_on_plan(service.sql, "b", allows("api_calls", None))
    body = {"user_id": "a", "organization_id": "b", "usage_type": "api_calls", "quantity": 3}
    await service.post("/usage", body)
    await service.drained()
    rows = await service.sql.fetch(query)
    assert [row["quantity"] for row in rows] == [3]


def test_the_first_answer_in_the_readme_has_the_fields_of_the_real_one() -> None:
    [printed] = re.findall(r"```json\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert list(msgspec.json.decode(printed)) == [
        "usage_id",
        "recorded_at",
        "quota_remaining",
        "quota_exceeded",
    ]


def test_every_command_named_in_the_documents_exists() -> None:
    named = {
        word
        for path in DOCUMENTS
        for word in re.findall(r"\./run ([a-z][a-z-]*)", path.read_text())
    }
    assert named
    assert named - {"test"} <= set(cli.COMMANDS)


def test_every_variable_in_the_documents_is_read_and_every_one_read_is_documented() -> None:
    files = ("settings.py", "auth_settings.py")
    source = "".join((ROOT / "ledger" / name).read_text() for name in files)
    read = set(re.findall(r'read\.\w+\([^"]*"([A-Z_]+)"', source))
    table = (ROOT / "docs" / "configuration.md").read_text()
    documented = set(re.findall(r"^\| `([A-Z_]+)`", table, re.MULTILINE))
    assert documented - read == {"BILLING_TOKEN"}  # of a command line, not of the service
    assert read <= documented
    assert settings.SettingError("PORT", "x").variable in documented


def test_every_reason_in_the_runbooks_is_one_that_the_service_gives() -> None:
    text = (ROOT / "docs" / "runbooks.md").read_text()
    [section] = re.findall(r"## Readiness\n(.*?)\n## ", text, re.DOTALL)
    cells = re.findall(r"^\| (`.*?) \|", section, re.M)
    told = [reason for cell in cells for reason in re.findall(r"`([^`]+)`", cell)]
    sources = [
        "gateway/probes.py",
        "gateway/backlog.py",
        "ledger/billing_state.py",
        "ledger/audit/state.py",
        "lua/multiplexer.py",
        "lua/connection.py",
    ]
    given = re.sub(r'"\s*f?"', "", "".join((ROOT / one).read_text() for one in sources))
    assert len(told) > 8
    for reason in told:
        assert reason in given


def test_every_link_in_the_documents_leads_to_a_file() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_every_file_named_in_the_documents_exists() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"`((?:gateway|ledger|lua|tests)/[\w/.]+)`", path.read_text()):
            assert (ROOT / target).exists(), f"{path.name}: {target}"
    assert os.access(ROOT / "run", os.X_OK)


def test_every_metric_is_in_the_runbooks() -> None:
    text = (ROOT / "docs" / "runbooks.md").read_text()
    exposed = re.findall(r"^# TYPE (billing_\w+) ", metrics.exposition().decode(), re.M)
    ours = [name for name in exposed if not name.endswith("_created")]  # the library's own
    assert "billing_usage_total" in ours
    assert [name for name in ours if f"`{name}`" not in text] == []
