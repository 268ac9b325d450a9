"""Every Python example in docs/client.md runs as printed, against the real service."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from gateway import client
from gateway.client import BillingClient
from tests.client.conftest import used
from tests.conftest import Service

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "client.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
RECORDING = [example for example in EXAMPLES if ".record(" in example]


def run(source: str) -> dict[str, Any]:
    """Runs an example as a program that may await; the names it leaves behind."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, "docs/client.md", "exec", flags=flags, dont_inherit=True)
    names: dict[str, Any] = {"__name__": "example"}
    left = FunctionType(code, names)()
    if inspect.iscoroutine(left):
        asyncio.run(left)
    return names


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
async def test_an_example_runs_as_printed(
    service: Service, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    finance = service.token("finance")["Authorization"].removeprefix("Bearer ")
    monkeypatch.setenv("BILLING_TOKEN", finance)
    here = EXAMPLES[number].replace("http://localhost:8081", service.url)
    assert here != EXAMPLES[number]
    running = asyncio.create_task(asyncio.to_thread(run, here))
    while not running.done():  # beside it the ledger
        await service.drained()
        await asyncio.wait([running], timeout=0.02)
    await running


async def test_the_examples_record_what_they_say(service: Service) -> None:
    assert len(RECORDING) >= 6
    before = await used(service, "test-user")
    [batch] = [example for example in EXAMPLES if "Batching(" in example]
    await asyncio.to_thread(run, batch.replace("http://localhost:8081", service.url))
    assert await used(service, "test-user") == before + 1000


async def test_the_example_of_errors_reaches_its_limit(service: Service) -> None:
    [example] = [example for example in EXAMPLES if "except QuotaExceeded" in example]
    source = example.replace("http://localhost:8081", service.url)
    names = await asyncio.to_thread(run, source.replace("test-user", "limited-user"))
    assert names["to_repeat"] == []
    assert await used(service, "limited-user", "feature_uses") == 0


def test_every_error_and_call_is_documented() -> None:
    errors = {
        name
        for name in client.__all__
        if isinstance(kind := getattr(client, name), type) and issubclass(kind, Exception)
    } - {"LimitReached"}
    calls = {name for name in vars(BillingClient) if not name.startswith("_")} - {"usage_page"}
    assert {name for name in errors if f"`{name}`" not in DOCUMENT} == set()
    assert {name for name in calls if not re.search(rf"billing\.{name}\(", DOCUMENT)} == set()


def test_the_printed_values_of_the_options_are_the_defaults() -> None:
    [printed] = re.findall(r"together = (Batching\(.*?\n\))", DOCUMENT, re.DOTALL)
    assert eval(printed, vars(client).copy()) == client.Batching()  # noqa: S307
