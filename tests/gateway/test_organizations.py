"""Which account a record is charged to: body, token, stored subscription, in that order."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from ledger.domain.ids import dev_uuid
from tests.conftest import Service
from tests.ledger.plans import allows, on_plan
from tests.security.tokens import signed


def usage(user: str, organization: str | None = None, **more: Any) -> dict[str, Any]:
    found = {"user_id": user, "usage_type": "api_calls", "quantity": 1, **more}
    return found | ({"organization_id": organization} if organization else {})


async def charged(shared: Service, user: str) -> list[UUID | None]:
    """The organisations a user's records are in, oldest first."""
    await shared.drained()
    rows = await shared.sql.fetch(
        "SELECT organization_id FROM usage_records WHERE user_id = $1 ORDER BY recorded_at",
        dev_uuid(user),
    )
    return [row["organization_id"] for row in rows]


async def test_without_any_hint_a_record_is_personal(shared: Service) -> None:
    assert (await shared.post("/usage", usage("nobody")))[0] == 201
    assert await charged(shared, "nobody") == [None]


async def test_the_organization_of_the_body_is_charged(shared: Service) -> None:
    assert (await shared.post("/usage", usage("bodied", "clinic")))[0] == 201
    assert await charged(shared, "bodied") == [dev_uuid("clinic")]


@pytest.mark.parametrize("omitted", [{}, {"organization_id": None}])
async def test_the_only_organization_of_the_token_is_implied(
    shared: Service, omitted: dict[str, Any]
) -> None:
    user = f"implied-{len(omitted)}"
    token = shared.token(organizations=["clinic"])
    assert (await shared.post("/usage", usage(user, **omitted), headers=token))[0] == 201
    assert await charged(shared, user) == [dev_uuid("clinic")]


async def test_the_organization_of_the_subscription_is_implied(shared: Service) -> None:
    await on_plan(shared.sql, "stored", allows("api_calls", "5"), organization="clinic")
    for token in (shared.token(), shared.token(organizations=["clinic", "other"])):
        assert (await shared.post("/usage", usage("stored"), headers=token))[0] == 201
    assert await charged(shared, "stored") == [dev_uuid("clinic")] * 2


async def test_two_candidates_are_refused(shared: Service) -> None:
    token = shared.token(organizations=["clinic", "other"])
    status, said, _ = await shared.post("/usage", usage("torn"), headers=token)
    assert (status, "organization_id" in said["detail"]) == (400, True)
    status, _, _ = await shared.post("/usage", usage("torn", "other"), headers=token)
    assert status == 201
    assert await charged(shared, "torn") == [dev_uuid("other")]


@pytest.mark.parametrize("token_names", ["*", "other"])
async def test_contradicting_the_stored_subscription_is_a_conflict(
    shared: Service, token_names: str
) -> None:
    user = f"contradicts-{len(token_names)}"
    await on_plan(shared.sql, user, allows("api_calls", "5"), organization="clinic")
    token = shared.token(organizations=[token_names])
    for _ in range(2):
        status, said, _ = await shared.post("/usage", usage(user, "other"), headers=token)
        assert (status, said["type"]) == (409, "urn:billing:problem:conflict")
    check = usage(user, "other")
    assert (await shared.post("/quota/check", check, headers=token))[0] == 409
    assert await charged(shared, user) == []


async def test_a_personal_subscription_may_be_used_within_an_organization(shared: Service) -> None:
    await on_plan(shared.sql, "guest", allows("api_calls", "5"))
    status, said, _ = await shared.post("/usage", usage("guest", "clinic"))
    assert (status, said["quota_remaining"]) == (201, 4)


@pytest.mark.parametrize("path", ["/usage", "/quota/check"])
async def test_an_organization_that_the_token_does_not_name_is_forbidden(
    shared: Service, path: str
) -> None:
    for token in (shared.token(organizations=["clinic"]), _personal(shared)):
        status, said, _ = await shared.post(path, usage("foreign", "other"), headers=token)
        assert (status, said["type"]) == (403, "urn:billing:problem:forbidden")
    assert await charged(shared, "foreign") == []


async def test_a_token_without_organizations_is_for_personal_accounts_only(
    shared: Service,
) -> None:
    await on_plan(shared.sql, "employed", allows("api_calls", "5"), organization="clinic")
    assert (await shared.post("/usage", usage("employed"), headers=_personal(shared)))[0] == 403
    assert (await shared.post("/usage", usage("alone"), headers=_personal(shared)))[0] == 201
    assert await charged(shared, "alone") == [None]


async def test_the_same_user_has_a_quota_of_its_own_in_each_organization(shared: Service) -> None:
    for organization in ("clinic", "other", None):
        _, said, _ = await shared.post("/usage", usage("both", organization))
        assert said["quota_remaining"] == 9999


def _personal(shared: Service) -> dict[str, str]:
    return signed(shared, roles=["service"])
