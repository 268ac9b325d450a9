"""Opaque tokens: the auth service is asked, seldom, and whoever it does not vouch for stays out."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.auth import asked, service, throttle
from gateway.problems import Problem
from ledger.settings import Secret
from tests.auth_fake.server import FakeAuth, Fault, claims
from tests.security.conftest import Door, Time
from tests.security.tokens import REMOVED

FAULTS: list[Fault] = ["down", "garbage", "huge", "redirect", "error", "refuses us"]
OPAQUE = "2YotnFZFEjr1zCsicMWpAA"


@pytest.fixture
async def door(auth: FakeAuth, doors: list[Door]) -> Door:
    doors.append(Door(auth.settings("introspection")))
    return doors[0]


@pytest.fixture
async def both(auth: FakeAuth, doors: list[Door]) -> Door:
    """A gateway that verifies signed tokens and asks about them as well."""
    doors.append(Door(auth.settings("keys", "introspection")))
    return doors[0]


async def test_a_token_that_the_service_vouches_for_is_taken(auth: FakeAuth, door: Door) -> None:
    auth.active[OPAQUE] = claims(sub="ada", roles=["finance"])
    principal = await door.enter(OPAQUE)
    assert (principal.subject, list(principal.roles)) == ("ada", ["finance"])
    assert await door.status("another") == 401


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"exp": REMOVED, "iat": REMOVED, "iss": REMOVED}, 200),
        ({"token_type": "Bearer", "client_id": "x", "username": "ada"}, 200),
        ({"active": False}, 401),
        ({"active": "true"}, 401),
        ({"active": 1}, 401),
        ({"active": None}, 401),
        ({"exp": 1}, 401),
        ({"nbf": 10**11}, 401),
        ({"iss": "https://evil.example"}, 401),
        ({"aud": REMOVED}, 401),
        ({"aud": "another"}, 401),
        ({"sub": REMOVED}, 401),
        ({"roles": "admin"}, 401),
        ({"org": 5}, 401),
        ({"cnf": {"x5t#S256": "x"}}, 401),
    ],
    ids=str,
)
async def test_what_the_service_says_must_be_right(
    auth: FakeAuth, door: Door, said: dict[str, Any], status: int
) -> None:
    auth.active[OPAQUE] = claims(**said)
    assert await door.status(OPAQUE) == status


@pytest.mark.parametrize("token", ["x y", "a&active=true", "ümlaut", "a\x00", "a=b", "a" * 8193])
async def test_what_cannot_be_a_token_is_not_sent_on(
    auth: FakeAuth, door: Door, token: str
) -> None:
    assert (await door.status(token), auth.asked["introspection"]) == (401, 0)


async def test_a_token_is_asked_about_once_in_a_minute(
    auth: FakeAuth, door: Door, time_: Time
) -> None:
    auth.active[OPAQUE] = claims(exp=10**11)
    auth.may_answer.clear()
    coming = [asyncio.ensure_future(door.status(OPAQUE)) for _ in range(20)]
    await auth.until("introspection", 1)
    auth.may_answer.set()
    assert (await asyncio.gather(*coming), auth.asked["introspection"]) == ([200] * 20, 1)
    time_.passes(asked.REMEMBERED_S - 5)
    assert (await door.status(OPAQUE), auth.asked["introspection"]) == (200, 1)
    time_.passes(10)
    assert (await door.status(OPAQUE), auth.asked["introspection"]) == (200, 2)


async def test_a_bad_token_is_remembered_for_a_short_while(
    auth: FakeAuth, door: Door, time_: Time
) -> None:
    assert [await door.status(OPAQUE) for _ in range(5)] == [401] * 5
    assert auth.asked["introspection"] == 1
    auth.active[OPAQUE] = claims()
    time_.passes(asked.REFUSED_S + 1)
    assert await door.status(OPAQUE) == 200


@pytest.mark.parametrize("kind", ["opaque", "signed"])
async def test_a_token_that_is_revoked_is_refused_within_a_minute(
    auth: FakeAuth, both: Door, time_: Time, kind: str
) -> None:
    token = OPAQUE if kind == "opaque" else auth.signed()
    auth.active[token] = claims()
    assert await both.status(token) == 200
    time_.passes(30)
    both.authenticator.forget()  # it is verified once more, by what is known
    assert await both.status(token) == 200
    del auth.active[token]
    time_.passes(31)
    assert await both.status(token) == 401


async def test_a_signed_token_of_somebody_else_than_the_service_says_is_refused(
    auth: FakeAuth, both: Door
) -> None:
    token = auth.signed(sub="ada")
    auth.active[token] = claims(sub="bob")
    assert await both.status(token) == 401


async def test_a_forged_token_is_not_asked_about(auth: FakeAuth, both: Door) -> None:
    token = auth.signed()
    auth.active[token[:-4] + "AAAA"] = claims()
    assert (await both.status(token[:-4] + "AAAA"), auth.asked["introspection"]) == (401, 0)


async def test_a_signed_token_is_asked_about_where_no_keys_are_published(
    auth: FakeAuth, door: Door
) -> None:
    token = auth.signed()
    auth.active[token] = claims()
    assert await door.status(token) == 200


@pytest.mark.parametrize("fault", FAULTS)
async def test_without_the_service_who_is_known_goes_on_and_others_do_not(
    auth: FakeAuth, door: Door, time_: Time, fault: Fault
) -> None:
    auth.active = {OPAQUE: claims(exp=10**11), "other": claims()}
    assert await door.status(OPAQUE) == 200
    auth.fault = fault
    assert await door.status(OPAQUE) == 200
    with pytest.raises(Problem) as closed:
        await door.enter("other")
    assert (closed.value.kind.status, closed.value.headers["Retry-After"]) == (503, "5")
    time_.passes(asked.REMEMBERED_S + 1)
    assert await door.status(OPAQUE) == 503
    auth.fault = None
    assert await door.status(OPAQUE) == 200
    assert auth.asked["elsewhere"] == 0


async def test_the_service_is_asked_few_at_a_time(
    auth: FakeAuth, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "DEADLINE_S", 60)
    monkeypatch.setattr(service, "DEADLINE_S", 60)
    auth.may_answer.clear()
    coming = [asyncio.ensure_future(door.status(f"token-{number}")) for number in range(100)]
    await auth.until("introspection", asked.AT_ONCE)
    auth.may_answer.set()
    assert await asyncio.gather(*coming) == [401] * 100
    assert (auth.most_at_once, auth.asked["introspection"]) == (asked.AT_ONCE, 100)


async def test_nobody_waits_for_long_for_a_service_that_never_answers(
    auth: FakeAuth, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert service.DEADLINE_S == 2
    monkeypatch.setattr(asked, "DEADLINE_S", 0.05)
    auth.may_answer.clear()
    statuses = await asyncio.gather(*(door.status(f"token-{number}") for number in range(100)))
    assert statuses == [503] * 100


async def test_a_wrong_secret_lets_nobody_in(auth: FakeAuth, doors: list[Door]) -> None:
    settings = msgspec.structs.replace(
        auth.settings("introspection"), client_secret=Secret("wrong")
    )
    doors.append(Door(settings))
    auth.active[OPAQUE] = claims()
    assert await doors[0].status(OPAQUE) == 503


# Who sends bad ones again and again.


async def test_too_many_bad_tokens_of_an_address_are_held_up_for_a_while(
    auth: FakeAuth, door: Door, time_: Time
) -> None:
    auth.active = {OPAQUE: claims(exp=10**11), "other": claims(exp=10**11)}
    assert await door.status(OPAQUE) == 200
    statuses = [await door.status(f"bad-{number}") for number in range(throttle.BAD_TOKENS + 5)]
    assert statuses == [401] * throttle.BAD_TOKENS + [429] * 5
    calls = auth.asked["introspection"]
    with pytest.raises(Problem) as held_up:
        await door.enter("bad-again")
    assert held_up.value.document()["type"].endswith("rate-limited")
    assert 1 <= int(held_up.value.headers["Retry-After"]) <= throttle.WINDOW_S
    assert await door.status("other") == 429  # nobody knows that it is good
    assert auth.asked["introspection"] == calls
    assert await door.status(OPAQUE) == 200  # known
    assert await door.status("other", peer="10.0.0.2") == 200
    time_.passes(throttle.WINDOW_S)
    assert await door.status("bad-later") == 401


async def test_who_signs_well_is_never_held_up(auth: FakeAuth, doors: list[Door]) -> None:
    doors.append(Door(auth.settings("keys")))
    statuses = [await doors[0].status("bad") for _ in range(throttle.BAD_TOKENS + 1)]
    assert statuses[-1] == 429
    assert await doors[0].status(auth.signed()) == 200


def test_one_network_of_ipv6_counts_as_one_and_the_memory_of_addresses_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(throttle, "ADDRESSES", 10)
    monkeypatch.setattr(throttle, "BAD_TOKENS", 5)
    counts = throttle.Throttle()
    for number in range(5):
        counts.bad(f"2001:db8::{number}")
    with pytest.raises(Problem):
        counts.bad("2001:db8::ffff:1")
    for number in range(50):
        counts.bad(f"10.0.0.{number}")
    assert len(counts._counted) == 10
    for _ in range(5):
        counts.bad("::ffff:10.1.0.1")
    with pytest.raises(Problem):
        counts.bad("10.1.0.1")
