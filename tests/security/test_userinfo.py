"""A token that does not say for which organisations it is: the auth service knows."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.auth import asked
from ledger.domain.ids import dev_uuid
from tests.auth_fake.server import FakeAuth, Fault, claims
from tests.security.conftest import Door, Time
from tests.security.tokens import REMOVED

CLINIC, RIVAL = str(dev_uuid("clinic")), str(dev_uuid("rival"))


@pytest.fixture
async def door(auth: FakeAuth, doors: list[Door]) -> Door:
    doors.append(Door(auth.settings("keys", "introspection", "userinfo")))
    return doors[0]


def token(auth: FakeAuth, **said: Any) -> str:
    return auth.granted(**{"sub": "ada", "roles": ["user"], "org": REMOVED, **said})


@pytest.mark.parametrize("role", ["user", "org_admin"])
@pytest.mark.parametrize("org", [CLINIC, [CLINIC], [CLINIC, RIVAL], [], None], ids=str)
async def test_the_organizations_of_a_user_are_those_that_the_service_knows(
    auth: FakeAuth, door: Door, role: str, org: Any
) -> None:
    auth.organizations["ada"] = org
    principal = await door.enter(token(auth, roles=[role]))
    expected = [org] if isinstance(org, str) else org or []
    assert {str(one) for one in principal.organizations} == set(expected)


async def test_it_is_not_asked_about_who_says_it_or_does_not_need_it(
    auth: FakeAuth, door: Door
) -> None:
    for said in ({"org": CLINIC}, {"roles": ["service"]}, {"roles": ["finance"]}):
        assert await door.status(token(auth, **said)) == 200
    assert auth.asked["userinfo"] == 0


async def test_a_user_that_the_service_does_not_know_stays_out(auth: FakeAuth, door: Door) -> None:
    assert await door.status(token(auth)) == 401


async def test_an_answer_about_somebody_else_is_not_taken(
    auth: FakeAuth, doors: list[Door]
) -> None:
    doors.append(Door(auth.settings("keys", "userinfo")))
    made = token(auth)
    auth.organizations["bob"] = CLINIC
    auth.active[made] = claims(sub="bob")  # what userinfo goes by
    assert await doors[0].status(made) == 401


async def test_it_is_asked_once_in_a_minute_and_another_organization_shows_within_it(
    auth: FakeAuth, door: Door, time_: Time
) -> None:
    auth.organizations["ada"] = CLINIC
    made = token(auth)
    assert (await door.enter(made)).organizations == {dev_uuid("clinic")}
    auth.organizations["ada"] = RIVAL
    assert (await door.enter(made)).organizations == {dev_uuid("clinic")}
    assert auth.asked["userinfo"] == 1
    time_.passes(asked.REMEMBERED_S + 1)
    assert (await door.enter(made)).organizations == {dev_uuid("rival")}


@pytest.mark.parametrize("fault", ["down", "garbage", "huge", "redirect", "error"])
async def test_without_an_answer_nobody_gets_in_as_somebody_without_an_organization(
    auth: FakeAuth, doors: list[Door], fault: Fault
) -> None:
    doors.append(Door(auth.settings("keys", "userinfo")))
    auth.organizations["ada"] = CLINIC
    made = token(auth)
    await doors[0].refresh()
    auth.fault = fault
    assert await doors[0].status(made) == 503
    auth.fault = None
    assert await doors[0].status(made) == 200
