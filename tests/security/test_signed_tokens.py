"""Signed tokens of an auth service: which are taken, and by which keys."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from joserfc.jwk import OctKey

from gateway.auth import asked, keys, service
from gateway.problems import Problem
from tests.auth_fake.server import FakeAuth, Fault, In, ec, rsa
from tests.security.conftest import Door, Time
from tests.security.corpus import CORPUS, PUBLISHED, Named

FAULTS: list[Fault] = ["down", "garbage", "huge", "redirect", "error", "refuses us"]


@pytest.fixture
async def door(auth: FakeAuth, doors: list[Door]) -> Door:
    doors.append(Door(auth.settings("keys")))
    return doors[0]


@pytest.mark.parametrize("token", CORPUS, ids=[one.name for one in CORPUS])
async def test_a_token_is_taken_or_not(auth: FakeAuth, door: Door, token: Named) -> None:
    auth.keys = PUBLISHED
    assert await door.status(token.make(auth)) == (200 if token.good else 401)


def test_there_are_enough_tokens_and_no_two_have_one_name() -> None:
    assert len(CORPUS) == len({one.name for one in CORPUS}) >= 60


async def test_a_good_token_says_who_is_there(auth: FakeAuth, door: Door) -> None:
    clinic = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
    principal = await door.enter(auth.signed(sub="ada", roles=["user"], org=[clinic], scope="a b"))
    assert (principal.subject, list(principal.roles)) == ("ada", ["user"])
    assert [str(one) for one in principal.organizations] == [clinic]
    assert sorted(principal.scopes) == ["a", "b"]


async def test_a_new_key_is_found_when_a_token_names_it(auth: FakeAuth, door: Door) -> None:
    assert await door.status(auth.signed()) == 200
    auth.keys.append(ec("two"))
    assert await door.status(auth.signed(auth.keys[1])) == 200
    assert auth.asked["keys"] == 2


async def test_made_up_key_ids_have_the_keys_read_once_in_half_a_minute(
    auth: FakeAuth, door: Door, time_: Time
) -> None:
    await door.refresh()
    made_up = [auth.signed(ec(f"made up {number}")) for number in range(20)]
    found = await asyncio.gather(*(door.status(one) for one in made_up))
    assert (set(found), auth.asked["keys"]) == ({401}, 2)
    time_.passes(keys.MISSED_S - 2)
    assert [await door.status(one) for one in made_up] == [401] * 20
    assert auth.asked["keys"] == 2
    time_.passes(4)
    assert [await door.status(one) for one in made_up] == [401] * 20
    assert auth.asked["keys"] == 3


async def test_who_comes_while_the_keys_are_read_waits_for_them(auth: FakeAuth, door: Door) -> None:
    auth.may_answer.clear()
    coming = [asyncio.ensure_future(door.status(auth.signed(jti=str(one)))) for one in range(5)]
    await auth.until("keys", 1)
    auth.may_answer.set()
    assert await asyncio.gather(*coming) == [200] * 5
    assert auth.asked["keys"] == 1


async def test_a_key_that_is_withdrawn_lets_nobody_in_within_a_minute(
    auth: FakeAuth, door: Door, time_: Time
) -> None:
    token = auth.signed()
    assert await door.status(token) == 200
    auth.keys = [ec("two")]
    assert keys.REFRESH_S + service.DEADLINE_S < 60
    time_.passes(keys.REFRESH_S)
    await door.refresh()
    assert await door.status(token) == 401


async def test_another_key_under_the_same_id_takes_the_place_of_the_first(
    auth: FakeAuth, door: Door
) -> None:
    token = auth.signed()
    assert await door.status(token) == 200
    auth.keys = [ec("one")]
    await door.refresh()
    assert (await door.status(token), await door.status(auth.signed())) == (401, 200)


async def test_keys_are_read_again_and_again_in_the_background(
    auth: FakeAuth, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "REFRESH_S", 0.001)
    async with door.authentication.running():
        await auth.until("keys", 3)


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_is_known_is_believed_for_an_hour_without_the_service_and_no_longer(
    auth: FakeAuth, door: Door, time_: Time, fault: Fault
) -> None:
    assert await door.status(auth.signed()) == 200
    auth.fault = fault
    time_.passes(keys.STALE_S - 60)
    await door.refresh()
    assert await door.status(auth.signed(exp=10**11)) == 200
    assert await door.status(auth.signed(ec("two"), exp=10**11)) == 503
    time_.passes(120)
    with pytest.raises(Problem) as closed:
        await door.enter(auth.signed(exp=10**11, jti="2"))
    assert (closed.value.kind.status, closed.value.headers["Retry-After"]) == (503, "5")
    auth.fault = None
    await door.refresh()
    assert await door.status(auth.signed(exp=10**11)) == 200
    assert auth.asked["elsewhere"] == 0


@pytest.mark.parametrize("fault", FAULTS)
async def test_without_any_keys_nobody_gets_in(auth: FakeAuth, door: Door, fault: Fault) -> None:
    auth.fault = fault
    assert await door.status(auth.signed()) == 503
    auth.fault = None
    await door.refresh()
    assert await door.status(auth.signed()) == 200


async def test_a_service_that_never_answers_is_not_waited_for(
    auth: FakeAuth, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "DEADLINE_S", 0.05)
    auth.fault = "slow"
    assert await door.status(auth.signed()) == 503


def public(key: Any, **said: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), **said}


GOOD = ec("good")
UNUSABLE: dict[str, Any] = {
    "symmetric": OctKey.generate_key(256, {"kid": "x"}).as_dict(private=True),
    "private": GOOD.as_dict(private=True),
    "for encryption": public(GOOD, use="enc"),
    "to sign only": public(GOOD, key_ops=["sign"]),
    "of another algorithm": public(GOOD, alg="HS256"),
    "of no algorithm for signing": public(GOOD, alg="ECDH-ES"),
    "on another curve": public(GOOD, crv="P-384"),
    "not on its curve": public(GOOD, x="AAAA"),
    "too short": public(rsa("x", bits=1024)),
    "much too long": public(rsa("x"), n="_" * 20_000),
    "of a large exponent": public(rsa("x"), e="_" * 400),
    "of an unknown kind": {"kty": "AKP", "kid": "x"},
    "without an id": {**public(GOOD), "kid": None},
    "no object": 5,
}


@pytest.mark.parametrize("name", UNUSABLE)
async def test_a_key_that_cannot_be_used_is_left_out_and_the_others_are_not(
    auth: FakeAuth, door: Door, name: str
) -> None:
    signer = ec("other")
    auth.published = {"keys": [UNUSABLE[name], public(signer)]}
    assert await door.status(auth.signed(signer)) == 200
    assert await door.status(auth.signed(GOOD)) == 401


@pytest.mark.parametrize(
    "published",
    [
        [],
        {},
        {"keys": {}},
        {"keys": [public(GOOD)] * 2},
        {"keys": [public(ec(str(number))) for number in range(keys.MAX_KEYS + 1)]},
    ],
    ids=["a list", "nothing", "no list", "one id twice", "too many"],
)
async def test_what_is_no_set_of_keys_changes_nothing(
    auth: FakeAuth, door: Door, published: Any
) -> None:
    token = auth.signed()
    assert await door.status(token) == 200
    auth.published = published
    await door.refresh()
    door.authenticator.forget()
    assert await door.status(token) == 200


async def test_a_service_that_publishes_no_key_any_more_lets_nobody_in(
    auth: FakeAuth, door: Door
) -> None:
    token = auth.signed()
    assert await door.status(token) == 200
    auth.keys = []
    await door.refresh()
    assert await door.status(token) == 401


async def test_a_verified_token_is_good_to_its_end_and_no_longer(
    auth: FakeAuth, door: Door, time_: Time
) -> None:
    token = auth.signed(exp=In(40))
    assert await door.status(token) == 200
    time_.passes(90)
    assert await door.status(token) == 401
    assert asked.REMEMBERED_S <= 60
