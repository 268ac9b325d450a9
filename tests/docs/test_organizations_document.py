"""Every example of docs/organizations.md does and answers what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import msgspec

from ledger.domain.organization import RETENTION_YEARS
from tests.conftest import BASE, Service
from tests.docs.test_documents import without_curl
from tests.docs.test_subscriptions_document import is_told

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "organizations.md").read_text()
[SHELL] = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.split(r"\n(?=finance )", SHELL.strip())
ANSWERS = [msgspec.json.decode(one) for one in re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)]


async def test_the_commands_answer_what_is_printed_below_them(service: Service) -> None:
    token = f"Authorization: {service.token('finance')['Authorization']}"
    headers = ["-H", token, "-H", "Content-Type: application/json"]
    assert len(COMMANDS) == len(ANSWERS) == 3
    for command, told in zip(COMMANDS, ANSWERS, strict=True):
        words = shlex.split(command.replace("$API", f"{service.url}{BASE}"))
        real = msgspec.json.decode(await without_curl(service, ["curl", *headers, *words[1:]]))
        assert is_told(told, real), (command, real)


def test_the_page_names_every_field_and_the_years_of_the_code() -> None:
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", TEXT, re.M))))
    assert named | {
        "organization_id",
        "retention_years",
        "access_to_books_until",
        "created_at",
        "updated_at",
    } == set(ANSWERS[1])
    for name, years in RETENTION_YEARS.items():
        assert re.search(rf"`{name}`: (records are kept )?{years}\b", TEXT)
