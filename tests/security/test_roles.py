"""The role table, every cell: what each caller may do and whose things it may see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ledger.domain.ids import dev_uuid
from tests.conftest import Service
from tests.gateway.conftest import shared as shared
from tests.ledger.plans import allows, on_plan, organization_on_plan, pool
from tests.security.tokens import signed

READS = ("/usage?user_id={}", "/quota/{}", "/subscription/{}")
"""Nurse and doctor are of the clinic, visitor of the rival; hermit has no organisation."""


@pytest.fixture(scope="module")
async def clinic(shared: Service) -> AsyncIterator[Service]:
    for user, organization in [
        ("nurse", "clinic"),
        ("doctor", "clinic"),
        ("visitor", "rival"),
        ("hermit", None),
    ]:
        await on_plan(shared.sql, user, allows("api_calls", "100"), organization=organization)
        usage = {"user_id": user, "usage_type": "api_calls", "quantity": 1}
        assert (await shared.post("/usage", usage))[0] == 201
    for organization in ("clinic", "rival"):
        await organization_on_plan(shared.sql, organization, pool("api_calls", "900"))
    await shared.drained()
    yield shared


def caller(service: Service, name: str) -> dict[str, str]:
    """A named kind of caller's Authorization header."""
    nurse = str(dev_uuid("nurse"))
    clinic, rival = str(dev_uuid("clinic")), str(dev_uuid("rival"))
    made: dict[str, dict[str, Any]] = {
        "nurse": {"roles": ["user"], "sub": nurse, "org": clinic, "scope": ""},
        "nurse without org": {"roles": ["user"], "sub": nurse, "scope": ""},
        "org_admin": {"roles": ["org_admin"], "org": clinic, "scope": ""},
        "org_admin without org": {"roles": ["org_admin"], "scope": ""},
        "org_admin of two": {"roles": ["org_admin"], "org": [clinic, rival], "scope": ""},
        "finance": {"roles": ["finance"], "scope": ""},
        "admin": {"roles": ["admin"], "scope": ""},
        "service": {"roles": ["service"], "org": clinic},
        "service for all": {"roles": ["service"], "org": "*"},
        "reader": {"roles": ["service"], "org": "*", "scope": "usage:read"},
        "writer": {"roles": ["service"], "org": "*", "scope": "usage:write"},
        "no scope": {"roles": ["service"], "org": "*", "scope": ""},
        "no role": {"roles": [], "org": "*"},
        "unknown role": {"roles": ["root", "Admin", "*"], "org": "*"},
    }
    return signed(service, **made[name])


WRITERS = {"service for all", "writer", "service"}


@pytest.mark.parametrize("path", ["/usage", "/usage/batch", "/quota/check"])
@pytest.mark.parametrize(
    "name",
    [
        "nurse",
        "org_admin",
        "org_admin of two",
        "finance",
        "admin",
        "service",
        "service for all",
        "reader",
        "writer",
        "no scope",
        "no role",
        "unknown role",
    ],
)
async def test_only_services_with_the_scope_may_record(
    clinic: Service, path: str, name: str
) -> None:
    usage = {
        "user_id": "nurse",
        "organization_id": "clinic",
        "usage_type": "api_calls",
        "quantity": 1,
    }
    body = {"records": [usage]} if path == "/usage/batch" else usage
    status, said, _ = await clinic.post(path, body, headers=caller(clinic, name))
    if name in WRITERS:
        assert status in (200, 201)
    else:
        assert (status, said["type"]) == (403, "urn:billing:problem:forbidden")


# What each caller gets for: nurse (own for nurse), doctor, visitor, hermit.
SEES: dict[str, tuple[int, int, int, int]] = {
    "nurse": (200, 403, 404, 404),
    "org_admin": (200, 200, 404, 404),
    "finance": (200, 200, 200, 200),
    "admin": (200, 200, 200, 200),
}
SERVICES: dict[str, tuple[int, int, int, int]] = {
    "service": (200, 200, 404, 404),
    "service for all": (200, 200, 200, 200),
    "reader": (200, 200, 200, 200),
    "writer": (403, 403, 403, 403),
    "no scope": (403, 403, 403, 403),
    "no role": (403, 403, 403, 403),
    "unknown role": (403, 403, 403, 403),
}
USERS = ("nurse", "doctor", "visitor", "hermit")


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("name", [*SEES, *SERVICES])
async def test_a_quota_is_read_by_whom_it_concerns(clinic: Service, name: str, user: str) -> None:
    status, said, _ = await clinic.get(f"/quota/{user}", headers=caller(clinic, name))
    expected = (SEES | SERVICES)[name][USERS.index(user)]
    if expected == 404 and name in ("org_admin", "service"):
        # The question means the account that this user would have in the token's organisation;
        # a subscription that belongs elsewhere contradicts it.
        assert status in (200, 404, 409)
        assert status != 200 or said["organization_id"] == str(dev_uuid("clinic"))
        own = [one for one in said.get("quotas", ()) if one["scope"] == "user"]
        assert {one["used"] for one in own} <= {0}
        assert status != 200 or user != "visitor"
    else:
        assert status == expected


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("name", [*SEES, *SERVICES])
async def test_a_subscription_is_read_by_whom_it_concerns(
    clinic: Service, name: str, user: str
) -> None:
    status, _, _ = await clinic.get(f"/subscription/{user}", headers=caller(clinic, name))
    assert status == (403 if name in SERVICES else SEES[name][USERS.index(user)])


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("name", [*SEES, *SERVICES])
async def test_a_usage_list_never_holds_a_foreign_row(
    clinic: Service, name: str, user: str
) -> None:
    headers = caller(clinic, name)
    status, said, _ = await clinic.get(f"/usage?user_id={user}", headers=headers)
    expected = (SEES | SERVICES)[name][USERS.index(user)]
    if expected == 200:
        assert (status, len(said["data"]) >= 1) == (200, True)
    else:
        assert status in (200, 403, 404)
        assert status != 200 or said["data"] == []
        assert expected != 403 or status == 403


@pytest.mark.parametrize("name", ["nurse", "org_admin", "service"])
async def test_a_foreign_organization_is_not_found(clinic: Service, name: str) -> None:
    headers = caller(clinic, name)
    for path in (
        "/usage?organization_id=rival",
        "/quota/visitor?organization_id=rival",
        "/quota/nurse?organization_id=rival",
        "/subscription/visitor?organization_id=rival",
        "/subscription/x?scope=organization&organization_id=rival",
    ):
        status, said, _ = await clinic.get(path, headers=headers)
        if name == "service" and path.startswith("/subscription"):
            assert status == 403
        elif name == "nurse" and path.startswith("/usage"):
            assert status in (200, 403, 404)
            assert status != 200 or said["data"] == []
        else:
            assert (status, path) == (404, path)


async def test_a_list_of_an_organization_is_its_own_rows(clinic: Service) -> None:
    for name in ("org_admin", "service", "finance"):
        _, said, _ = await clinic.get("/usage?organization_id=clinic", headers=caller(clinic, name))
        assert {one["organization_id"] for one in said["data"]} == {str(dev_uuid("clinic"))}
        assert {one["user_id"] for one in said["data"]} >= {
            str(dev_uuid("nurse")),
            str(dev_uuid("doctor")),
        }


async def test_a_user_without_an_organization_in_the_token_reads_only_its_own(
    clinic: Service,
) -> None:
    headers = caller(clinic, "nurse without org")
    for user in ("doctor", "visitor", "hermit"):
        for path in READS:
            status, said, _ = await clinic.get(path.format(user), headers=headers)
            assert status in (403, 404), path
    _, said, _ = await clinic.get("/usage", headers=headers)
    assert {one["user_id"] for one in said["data"]} <= {str(dev_uuid("nurse"))}


@pytest.mark.parametrize("user", USERS)
async def test_an_org_admin_without_an_organization_reads_nobody(
    clinic: Service, user: str
) -> None:
    headers = caller(clinic, "org_admin without org")
    for path in READS:
        status, said, _ = await clinic.get(path.format(user), headers=headers)
        assert status in (403, 404) or said.get("data") == [], path


async def test_a_cursor_of_a_foreign_row_shows_no_foreign_row(clinic: Service) -> None:
    _, foreign, _ = await clinic.get("/usage?user_id=visitor", headers=clinic.token("admin"))
    cursor = foreign["data"][0]["usage_id"]
    status, said, _ = await clinic.get(
        f"/usage?user_id=nurse&starting_after={cursor}", headers=caller(clinic, "nurse")
    )
    own = {str(dev_uuid("nurse"))}
    assert status == 400 or {one["user_id"] for one in said["data"]} <= own


async def test_without_a_token_dev_is_a_service_but_sees_no_subscription(clinic: Service) -> None:
    assert (await clinic.get("/quota/nurse"))[0] == 200
    assert (await clinic.get("/usage?user_id=nurse"))[0] == 200
    status, said, headers = await clinic.get("/subscription/nurse")
    assert (status, said["type"]) == (401, "urn:billing:problem:unauthorized")
    assert headers["WWW-Authenticate"] == "Bearer"


async def test_rights_of_several_roles_add_up(clinic: Service) -> None:
    both = signed(clinic, roles=["service", "finance"], scope="usage:write", org="*")
    usage = {"user_id": "hermit", "usage_type": "api_calls", "quantity": 1}
    assert (await clinic.post("/usage", usage, headers=both))[0] == 201
    assert (await clinic.get("/subscription/hermit", headers=both))[0] == 200
    assert (await clinic.get("/quota/hermit", headers=both))[0] == 200
