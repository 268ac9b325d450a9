"""The one free text in metadata, `note`, takes a business associate agreement."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from gateway import agreements
from gateway.agreements import Agreements
from gateway.known import Unknown
from gateway.problems import Problem
from ledger import clock, db, store
from ledger.domain.ids import dev_uuid
from ledger.domain.organization import Organization
from tests.conftest import BASE, Service

SIGNED = {"name": "Clinic", "baa": "signed", "baa_signed_on": "2026-01-15"}
UNSIGNED = {"name": "Clinic"}


async def describe(service: Service, name: str, body: dict[str, Any]) -> None:
    async with service.http.put(
        f"{service.url}{BASE}/organizations/{name}", json=body, headers=service.token("finance")
    ) as response:
        assert response.status in (200, 201)


async def record(service: Service, organization: str | None, note: str) -> tuple[int, Any]:
    body = {
        "user_id": f"user-{organization}", "usage_type": "api_calls", "quantity": 1,
        "metadata": {"feature": "triage", "note": note},
    }  # fmt: skip
    if organization:
        body["organization_id"] = organization
    status, said, _ = await service.post("/usage", body)
    return status, said


async def test_a_note_takes_an_agreement_that_is_in_force_now(shared: Service) -> None:
    for described, expected in [(None, 400), (UNSIGNED, 400), (SIGNED, 201), (UNSIGNED, 400)]:
        if described:
            await describe(shared, "changing", described)
        status, said = await record(shared, "changing", "asked twice")
        assert status == expected
        if status == 400:
            assert said["type"] == "urn:billing:problem:phi-rejected"
            assert "business associate agreement" in said["detail"]
            assert "asked twice" not in str(said)
    await shared.drained()
    _, listed, _ = await shared.get("/usage?organization_id=changing")
    assert [one["metadata"] for one in listed["data"]] == [
        {"feature": "triage", "note": "asked twice"}
    ]


async def test_a_personal_account_has_no_agreement(shared: Service) -> None:
    status, said = await record(shared, None, "asked twice")
    assert (status, said["type"]) == (400, "urn:billing:problem:phi-rejected")


async def test_a_batch_decides_each_note_by_its_own_organisation(shared: Service) -> None:
    await describe(shared, "with", SIGNED)
    note = {"metadata": {"note": "asked twice"}, "usage_type": "api_calls", "quantity": 1}
    records = [
        {**note, "user_id": f"u-{one}", "organization_id": one} for one in ("with", "without")
    ]
    _, said, _ = await shared.post("/usage/batch", {"records": records})
    assert [one["status"] for one in said["results"]] == [201, 400]


@pytest.mark.parametrize(
    "note", ["", "x" * 201, "two\nlines", "ssn 219-09-9137", "patient Ada Lovelace"]
)
async def test_a_note_is_short_and_without_what_identifies_a_person(
    shared: Service, note: str
) -> None:
    await describe(shared, "signed", SIGNED)
    status, said = await record(shared, "signed", note)
    assert (status, said["type"]) == (400, "urn:billing:problem:phi-rejected"), said


async def test_all_of_metadata_is_a_kilobyte_at_most(shared: Service) -> None:
    await describe(shared, "wordy", SIGNED)
    status, _ = await record(shared, "wordy", "\U0001f642" * 200)
    assert status == 201
    long = {name: "x" * 64 for name in ("request_id", "conversation_id", "department", "feature")}
    status, said, _ = await shared.post(
        "/usage",
        {
            "user_id": "user-wordy", "organization_id": "wordy", "usage_type": "api_calls",
            "quantity": 1, "metadata": long | {"note": "\U0001f642" * 200},
        },
    )  # fmt: skip
    assert (status, "1024 bytes" in said["detail"]) == (400, True)


async def test_an_agreement_is_believed_for_a_minute_and_not_longer(
    database_url: str, connection: db.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    organization = dev_uuid("clinic")
    described = Organization(name="Clinic", baa="signed", baa_signed_on=date(2026, 1, 15))
    await store.organizations.put(connection, organization, described, clock.now())
    async with db.pool(database_url, 1) as pool:
        known = Agreements(pool)
        await learn(known, organization)
        assert known.signed(organization)
        await connection.execute("UPDATE organizations SET baa = 'none', baa_signed_on = NULL")
        now[0] += agreements.REMEMBERED_S - 1
        assert known.signed(organization)
        now[0] += 1
        await learn(known, organization)
        assert not known.signed(organization)
        now[0] += agreements.REMEMBERED_S
    with pytest.raises(Problem, match="not known now"):  # Postgres is away: no older answer stands
        await learn(known, organization)


async def learn(known: Agreements, organization: Any) -> None:
    with pytest.raises(Unknown) as unknown:
        known.signed(organization)
    await unknown.value.learn()
