"""Organisations over HTTP: described whole, protected records are given up by an admin alone."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from ledger.domain.ids import dev_uuid
from tests.conftest import Service
from tests.ledger.plans import allows, on_plan, organization_on_plan

CLINIC: dict[str, Any] = {
    "name": "Clinic North",
    "timezone": "America/Chicago",
    "baa": "signed",
    "baa_signed_on": "2026-01-15",
    "retention_class": "medicare_advantage",
    "legal_hold": True,
    "legal_hold_reason": "matter 2026-17",
    "cost_centers": {"icu": "31", "radiology": "54"},
    "billing_contact": {"name": "Rosa Vex", "email": "rosa.vex@clinic.example"},
    "stripe_customer": "cus_Nx4",
}
PERSONAL = ("Rosa", "Vex", "clinic.example")
DEFAULTS: dict[str, Any] = {
    "timezone": "UTC", "baa": "none", "baa_signed_on": None, "retention_class": "standard",
    "retention_years": 7, "legal_hold": False, "legal_hold_reason": None,
    "access_to_books_until": None, "cost_centers": {},
    "billing_contact": None, "stripe_customer": None,
}  # fmt: skip


async def put(
    service: Service, name: str, body: Any, role: Any = "admin", **headers: str
) -> tuple[int, Any, Any]:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    async with service.http.put(
        f"{service.url}/api/v1/billing/organizations/{name}",
        data=raw,
        headers=service.token(role) | {"Content-Type": "application/json"} | headers,
    ) as response:
        return response.status, await response.json(content_type=None), response.headers


async def get(service: Service, name: str, role: Any = "finance", **claims: Any) -> tuple[int, Any]:
    path = f"/organizations/{name}" if name else "/organizations"
    status, said, _ = await service.get(path, headers=service.token(role, **claims))
    return status, said


async def audited(service: Service, name: str) -> list[tuple[str, str, dict[str, Any]]]:
    rows = await service.sql.fetch(
        "SELECT event_type, actor, details FROM audit_events WHERE organization_id = $1"
        " AND event_type LIKE 'organization%' ORDER BY occurred_at",
        dev_uuid(name),
    )
    return [(row[0], row[1], msgspec.json.decode(row[2])) for row in rows]


async def test_it_is_read_as_it_was_described(shared: Service) -> None:
    status, said, headers = await put(shared, "whole", CLINIC)
    assert (status, headers["ETag"]) == (201, '"1"')
    assert said.items() >= CLINIC.items()
    assert (said["organization_id"], said["retention_years"]) == (str(dev_uuid("whole")), 10)
    assert said["created_at"] == said["updated_at"]
    assert await get(shared, "whole") == (200, said)
    assert await get(shared, "whole", "org_admin", organizations=["whole"]) == (200, said)


async def test_a_put_replaces_it_whole_and_the_same_again_changes_nothing(shared: Service) -> None:
    await put(shared, "again", {**CLINIC, "legal_hold": False, "legal_hold_reason": None})
    plain = {"name": "Clinic", "legal_hold": False, "retention_class": "standard"}
    status, said, headers = await put(shared, "again", plain)
    assert (status, headers["ETag"]) == (200, '"2"')
    assert said.items() >= DEFAULTS.items()
    assert said["updated_at"] > said["created_at"]
    status, same, headers = await put(shared, "again", {"name": "Clinic"}, "finance")
    assert (status, headers["ETag"], same) == (200, '"2"', said)
    assert [kind for kind, _, _ in await audited(shared, "again")] == [
        "organization_created", "organization_changed"
    ]  # fmt: skip


async def test_who_saw_an_older_one_is_told(shared: Service) -> None:
    new = {"name": "Clinic"}
    assert (await put(shared, "etag", new, **{"If-Match": '"1"'}))[0] == 412
    assert (await put(shared, "etag", new))[0] == 201
    bodies = [{"name": f"Clinic {number}"} for number in range(4)]
    said = await asyncio.gather(
        *(put(shared, "etag", one, **{"If-Match": '"1"'}) for one in bodies)
    )
    assert sorted(one[0] for one in said) == [200, 412, 412, 412]
    assert (await put(shared, "etag", new, **{"If-Match": "*"}))[2]["ETag"] == '"3"'


async def test_of_many_who_describe_it_first_one_makes_it(shared: Service) -> None:
    bodies = [{"name": f"Clinic {number}"} for number in range(6)]
    said = await asyncio.gather(*(put(shared, "first", one) for one in bodies))
    assert sorted(one[0] for one in said) == [200] * 5 + [201]
    versions = sorted(one[2]["ETag"] for one in said)
    assert versions == [f'"{number}"' for number in range(1, 7)]


async def test_an_audit_event_says_what_changed_and_nothing_personal(shared: Service) -> None:
    await put(shared, "audited", CLINIC)
    moved = {"name": "Max Orr", "email": "max@clinic.example"}
    await put(shared, "audited", {**CLINIC, "billing_contact": moved, "name": "South"}, "finance")
    created, renamed = await audited(shared, "audited")
    assert created[:2] == ("organization_created", "admin-dev")
    assert created[2]["legal_hold_reason"] == "matter 2026-17"
    assert (renamed[1], renamed[2]["changed"]) == ("finance-dev", ["name", "billing_contact"])
    for secret in (*PERSONAL, "Max", "Orr", "cus_"):
        assert secret not in str((created, renamed))


@pytest.mark.parametrize(
    "lower",
    [
        {"legal_hold": False, "legal_hold_reason": None},
        {"retention_class": "standard"},
    ],
    ids=["legal hold", "retention class"],
)
async def test_only_an_admin_gives_up_what_protects_records(
    shared: Service, lower: dict[str, Any]
) -> None:
    name = f"held-{'-'.join(lower)}"
    await put(shared, name, CLINIC, "finance")
    status, said, _ = await put(shared, name, CLINIC | lower, "finance")
    assert (status, said["type"]) == (403, "urn:billing:problem:forbidden")
    left_out = {key: one for key, one in CLINIC.items() if key not in lower}
    assert (await put(shared, name, left_out, "finance"))[0] == 403
    status, said, _ = await put(shared, name, left_out)
    assert (status, "say legal_hold and retention_class" in said["detail"]) == (400, True)
    assert (await get(shared, name))[1].items() >= CLINIC.items()
    assert (await put(shared, name, CLINIC | lower))[0] == 200
    assert (await put(shared, name, CLINIC, "finance"))[0] == 200  # protecting more is not


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "sEcReT\n"},
        {"name": "sEcReT\x00"},
        {"name": "s" * 201},
        {"timezone": "sEcReT"},
        {"timezone": "../sEcReT"},
        {"timezone": "localtime"},
        {"baa": "sEcReT"},
        {"baa": "none"},
        {"baa_signed_on": None},
        {"baa_signed_on": "2026-02-30"},
        {"baa_signed_on": "2999-01-01"},
        {"retention_class": "sEcReT"},
        {"legal_hold": False},
        {"legal_hold": "true"},
        {"legal_hold_reason": None},
        {"legal_hold_reason": "sEcReT\x00"},
        {"cost_centers": {"sEcReT and more": "5"}},
        {"cost_centers": {"icu": "sEcReT Ada Lovelace"}},
        {"cost_centers": {"icu": "31\n"}},
        {"cost_centers": {f"c{number}": "5" for number in range(1001)}},
        {"billing_contact": {"name": "sEcReT"}},
        {"billing_contact": {"name": "Rosa", "email": "sEcReT"}},
        {"billing_contact": {"name": "Rosa", "email": "sEcReT@x\n"}},
        {"billing_contact": {"name": "Rosa", "email": "a@b.example", "sEcReT": "1"}},
        {"stripe_customer": "sEcReT"},
        {"stripe_customer": "cus_sEcReT\n"},
        {"patient": "sEcReT"},
        {"organization_id": "sEcReT"},
        {"version": 1},
    ],
    ids=lambda wrong: "-".join(wrong) + str(len(str(wrong))),
)
async def test_what_it_may_not_be_is_refused_and_not_repeated(
    shared: Service, wrong: dict[str, Any]
) -> None:
    status, said, _ = await put(shared, "wrong", CLINIC | wrong)
    assert (status, said["type"]) == (400, "urn:billing:problem:invalid-request")
    for secret in ("sEcReT", *PERSONAL):
        assert secret not in str(said)
    assert (await get(shared, "wrong"))[0] == 404


async def test_a_field_twice_is_refused_within_as_well(shared: Service) -> None:
    for raw in (
        b'{"name": "a", "name": "b"}',
        b'{"name": "a", "billing_contact": {"name": "x", "email": "a@b", "email": "c@d"}}',
        b'{"name": "a", "cost_centers": {"icu": "1", "icu": "2"}}',
        b'{"name": "a", "legal_hold": false, "legal_hold": false}',
    ):
        status, said, _ = await put(shared, "wrong", raw)
        assert (status, "twice" in said["detail"]) == (400, True)
    odd = {"name": 'a": b', "cost_centers": {"a:b": "c:d"}, "billing_contact": None}
    assert (await put(shared, "odd", odd))[0] == 201


async def test_who_may_read_and_describe_it(shared: Service) -> None:
    await put(shared, "mine", CLINIC)
    for role in ("user", "service"):
        claims = {"user": "ada"} if role == "user" else {}
        assert (await get(shared, "mine", role, organizations=["mine"], **claims))[0] == 403
        assert (await get(shared, "", role, organizations=["mine"], **claims))[0] == 403
    for role in ("finance", "admin"):
        assert (await get(shared, "mine", role))[0] == 200
    assert (await get(shared, "mine", "org_admin", organizations=["mine", "other"]))[0] == 200
    status, said = await get(shared, "mine", "org_admin", organizations=["other"])
    unknown = await get(shared, "nowhere", "org_admin", organizations=["other"])
    assert (status, said["type"]) == (404, "urn:billing:problem:not-found")
    assert unknown[0] == 404 and unknown[1]["detail"] == said["detail"]
    assert (await get(shared, "", "org_admin", organizations=["mine"]))[0] == 403
    own = shared.token("org_admin", organizations=["mine"])
    assert (await put(shared, "mine", CLINIC, "service", **own))[0] == 403
    assert (await put(shared, "mine", CLINIC, "finance"))[0] == 200
    url = f"{shared.url}/api/v1/billing/organizations/mine"
    async with shared.http.get(url) as response:
        assert response.status == 401


async def test_one_that_nobody_described_is_found_once_it_is_known(shared: Service) -> None:
    assert (await get(shared, "unheard"))[0] == 404
    await organization_on_plan(shared.sql, "payer", allows("api_calls", "5"))
    await on_plan(shared.sql, "member", allows("api_calls", "5"), organization="home")
    usage = {"user_id": "x", "organization_id": "used", "usage_type": "api_calls", "quantity": 1}
    assert (await shared.post("/usage", usage))[0] == 201
    for name in ("payer", "home", "used"):
        path = f"/organizations/{name}"
        status, said, headers = await shared.get(path, headers=shared.token("finance"))
        assert (status, "ETag" in headers) == (200, False)
        assert said == DEFAULTS | {
            "organization_id": str(dev_uuid(name)), "name": None, "created_at": None,
            "updated_at": None,
        }  # fmt: skip
        assert (await put(shared, name, {"name": "Now it is"}))[0] == 201


async def test_a_list_is_of_those_described_newest_first(shared: Service) -> None:
    for name in ("list-1", "list-2", "list-3"):
        await put(shared, name, {"name": name})
    token, names, after = shared.token("finance"), [], ""
    for _ in range(3):
        _, page, _ = await shared.get(f"/organizations?limit=1{after}", headers=token)
        [one] = page["data"]
        assert page["has_more"]
        names.append(one["name"])
        after = f"&starting_after={one['organization_id']}"
    assert names == ["list-3", "list-2", "list-1"]
    for wrong in ("starting_after=x", f"starting_after={dev_uuid('no')}", "limit=0", "colour=red"):
        assert (await shared.get(f"/organizations?{wrong}", headers=token))[0] == 400


async def test_no_contact_is_logged(shared: Service, capsys: pytest.CaptureFixture[str]) -> None:
    await put(shared, "quiet", CLINIC)
    await get(shared, "quiet")
    await put(shared, "quiet", {**CLINIC, "timezone": "x"})
    logged = capsys.readouterr()
    for secret in PERSONAL:
        assert secret not in logged.out + logged.err
