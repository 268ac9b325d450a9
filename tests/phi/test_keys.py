"""An operator's own metadata keys: declared with a type, or refused in one line."""

from __future__ import annotations

import msgspec
import pytest

from ledger import settings
from ledger.domain.metadata_keys import BUILT_IN, MOST_ADDED, declared
from ledger.settings import SettingError, Settings
from tests.conftest import Services

URLS = {"DATABASE_URL": "postgresql://localhost/x", "REDIS_URL": "redis://localhost"}
DECLARED = "ward=token, shift=enum:day|night,beds=number,case_ref=uuid"
A_UUID = "01a20255-c9e5-72ee-a80c-079130b4c9bb"


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        ("ward", ["7-North", "icu", A_UUID], ["7 North", "", "x" * 65, "219-09-9137"]),
        ("shift", ["day", "night"], ["Day", "evening", "day|night", ""]),
        ("beds", ["12", "-3", "0.5"], ["1e5", "12345678901234", "1.", "twelve", "NaN"]),
        ("case_ref", [A_UUID], ["17", A_UUID + "0"]),
    ],
)
async def test_a_declared_key_takes_what_its_type_says(
    services: Services, settings: Settings, name: str, taken: list[str], refused: list[str]
) -> None:
    keys = declared(DECLARED)
    service = await services.start(msgspec.structs.replace(settings, metadata_keys=keys))
    body = {"user_id": "ada", "usage_type": "api_calls", "quantity": 1}
    records = [{**body, "metadata": {name: value}} for value in taken + refused]
    _, said, _ = await service.post("/usage/batch", {"records": records})
    assert [one["status"] for one in said["results"]] == [201] * len(taken) + [400] * len(refused)
    for value, result in zip(refused, said["results"][len(taken) :], strict=True):
        assert result["type"] == "urn:billing:problem:phi-rejected"
        assert len(value) < 2 or value not in result["detail"].replace("12 digits", "")


def test_the_variable_declares_keys_beside_the_built_in_ones() -> None:
    found = settings.load({**URLS, "METADATA_KEYS": DECLARED}).metadata_keys
    assert list(found) == ["ward", "shift", "beds", "case_ref"]
    assert settings.load(URLS).metadata_keys == {}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("ward", "key 1 must be a uuid, token, number or enum:one|other"),
        ("ward=token,shift=words", "key 2 must be a uuid, token, number or enum:one|other"),
        ("shift=enum:", "key 1 must be"),
        ("shift=enum:day|", "key 1 must be"),
        ("shift=enum:a b", "key 1 must be"),
        ("Ward=token", "key 1 must be like ward=token"),
        (f"{'w' * 33}=token", "key 1 must be like ward=token"),
        ("=token", "key 1 must be like ward=token"),
        ("ward=token,", "key 2 must be like ward=token"),
        ("ward=token,ward=uuid", "key 2 is there already"),
        ("feature=uuid", "key 1 is there already"),
        ("patient_ref=token", "key 1 is named for what must not enter"),
        ("note=token", "key 1 is named for what must not enter"),
        ("visit=enum:219-09-9137|b", "key 1 lists what must not enter"),
        (",".join(f"k{n}=token" for n in range(MOST_ADDED + 1)), "has more than 32 keys"),
    ],
)
def test_a_bad_declaration_is_one_line_that_repeats_none_of_it(value: str, said: str) -> None:
    with pytest.raises(SettingError) as error:
        settings.load({**URLS, "METADATA_KEYS": value})
    assert str(error.value).startswith(f"METADATA_KEYS: {said}")
    assert "219-09" not in str(error.value) and "patient" not in str(error.value)


def test_the_built_in_keys_are_those_that_were_promised() -> None:
    assert set(BUILT_IN) == {
        "conversation_id", "request_id", "ai_model_used", "feature", "cost_center", "department",
    }  # fmt: skip
