"""Which server a call goes to, on servers that say what a cluster says only rarely."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from lua.cluster import REDIRECTS, Cluster, slot_of
from lua.connection import Moved, RedisUnavailable, refused
from lua.keys import meta

Said = Callable[..., Any]
SLOTS = 16384


class Servers:
    """Answers in place of servers by what the test says of each; keeps what each was asked."""

    def __init__(self) -> None:
        self.says: dict[str, Said] = {}
        self.asked: list[tuple[str, str]] = []
        self.urls: list[str] = []
        self.closed = 0

    def connect(self, url: str) -> Any:
        self.urls.append(url)
        name, servers = url.rpartition("@")[2].removeprefix("redis://"), self

        class Server:
            async def run(self, *command: Any) -> Any:
                servers.asked.append((name, command[0]))
                said = servers.says[name](*command)
                if isinstance(said, str):
                    raise refused(said)
                if isinstance(said, Exception):
                    raise said
                return said

            async def close(self) -> None:
                servers.closed += 1

        return Server()

    def cluster(self, url: str = "redis://a:1") -> Cluster[Any]:
        return Cluster(url, self.connect)


def slots(*owners: tuple[str, int]) -> list[Any]:
    """CLUSTER SLOTS of servers that share the slots evenly."""
    each = SLOTS // len(owners)
    return [
        [at * each, SLOTS - 1 if at == len(owners) - 1 else (at + 1) * each - 1,
         [host.encode(), port, b"id", []], [b"replica", 9, b"id", []]]
        for at, (host, port) in enumerate(owners)
    ]  # fmt: skip


@pytest.fixture
def servers() -> Servers:
    return Servers()


GONE = RedisUnavailable("gone", outcome_unknown=True)
LOW, HIGH = meta(2), meta(1)  # slots 2956 and 15343


async def test_a_server_that_is_alone_is_asked_once_and_has_every_key(servers: Servers) -> None:
    servers.says["a:1"] = lambda *command: (
        "ERR This instance has cluster support disabled" if command[0] == "CLUSTER" else b"1"
    )
    redis = servers.cluster()
    for _ in range(3):
        assert list(await redis.primaries()) == ["redis"]
    assert await redis.run("GET", HIGH) == b"1"
    assert [word for _, word in servers.asked] == ["CLUSTER", "GET"]
    assert redis.name_of(HIGH) == "redis"
    redis.doubt()
    await asyncio.sleep(0)
    assert len(servers.asked) == 2


async def test_one_that_cannot_say_yet_is_asked_again(servers: Servers) -> None:
    said: list[Any] = [GONE, "LOADING Redis is loading", slots(("a", 1), ("b", 2))]
    servers.says["a:1"] = lambda *_: said.pop(0)
    redis = servers.cluster()
    assert [list(await redis.primaries()) for _ in range(3)] == [
        ["redis"],
        ["redis"],
        ["a:1", "b:2"],
    ]


async def test_a_key_is_asked_for_where_its_slot_is(servers: Servers) -> None:
    told = []
    servers.says["a:1"] = lambda *command: (
        slots(("a", 1), ("b", 2)) if command[0] == "CLUSTER" else b"a"
    )
    servers.says["b:2"] = lambda *_: b"b"
    redis = servers.cluster()
    redis.when_spread(lambda: told.append(1))
    for _ in range(2):
        await redis.look_round()
    assert told == [1]
    assert [await redis.run("GET", key) for key in (LOW, HIGH)] == [b"a", b"b"]
    assert await redis.evalsha("sha", [HIGH], []) == await redis.eval("text", [HIGH], []) == b"b"
    await redis.close()
    assert servers.closed == len(servers.urls)


async def test_a_moved_slot_is_followed_and_remembered(servers: Servers) -> None:
    """By one who did not even know that it is a cluster."""
    servers.says["a:1"] = lambda *command: (
        GONE if command[0] == "CLUSTER" else (f"MOVED {slot_of(command[1])} c:3")
    )
    servers.says["c:3"] = lambda *command: GONE if command[0] == "CLUSTER" else b"c"
    redis = servers.cluster()
    for _ in range(2):
        assert await redis.run("GET", HIGH) == b"c"
    asked = [name for name, word in servers.asked if word == "GET"]
    assert asked == ["a:1", "c:3", "c:3"]
    assert redis.name_of(HIGH) == "c:3"
    assert redis.name_of(LOW) == "a:1"
    await redis.close()


async def test_servers_that_disagree_are_not_asked_for_ever(servers: Servers) -> None:
    for one, other in (("a:1", "b:2"), ("b:2", "a:1")):
        servers.says[one] = lambda *command, other=other: (
            GONE if command[0] == "CLUSTER" else f"MOVED {slot_of(command[1])} {other}"
        )
    redis = servers.cluster()
    with pytest.raises(RedisUnavailable) as caught:
        await redis.run("GET", HIGH)
    assert not caught.value.outcome_unknown  # nobody has done anything
    assert [word for _, word in servers.asked].count("GET") == REDIRECTS
    await redis.close()


@pytest.mark.parametrize(
    "reply",
    [
        "ASK 15343 b:2",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "CLUSTERDOWN Hash slot not served",
        "CROSSSLOT Keys in request don't hash to the same slot",
        "READONLY You can't write against a read only replica.",
    ],
)
async def test_what_was_refused_did_not_happen_and_is_not_sent_again(
    servers: Servers, reply: str
) -> None:
    servers.says["a:1"] = lambda *command: slots(("a", 1)) if command[0] == "CLUSTER" else reply
    redis = servers.cluster()
    await redis.look_round()
    with pytest.raises(RedisUnavailable, match=reply.split()[0]) as caught:
        await redis.run("GET", HIGH)
    assert not caught.value.outcome_unknown
    assert [word for _, word in servers.asked].count("GET") == 1
    await redis.close()


async def test_a_lost_answer_is_not_asked_for_again_but_the_map_is(servers: Servers) -> None:
    """From one who is left: another has the slots by now."""
    alive = slots(("a", 1), ("b", 2))
    servers.says["a:1"] = lambda *command: alive if command[0] == "CLUSTER" else b"a"
    servers.says["b:2"] = lambda *_: GONE
    servers.says["c:3"] = lambda *command: alive if command[0] == "CLUSTER" else b"c"
    redis = servers.cluster()
    await redis.look_round()
    alive = slots(("a", 1), ("c", 3))
    with pytest.raises(RedisUnavailable) as caught:
        await redis.run("GET", HIGH)
    assert caught.value.outcome_unknown
    assert servers.asked.count(("b:2", "GET")) == 1
    async with asyncio.timeout(5):
        while redis.name_of(HIGH) != "c:3":  # noqa: ASYNC110 - the map tells nobody
            await asyncio.sleep(0)
    assert await redis.run("GET", HIGH) == b"c"
    await redis.close()


async def test_a_slot_that_nobody_has_is_refused_by_the_server_that_is_named(
    servers: Servers,
) -> None:
    half = slots(("b", 2), ("b", 2))[:1]
    servers.says["a:1"] = lambda *command: (
        half if command[0] == "CLUSTER" else "CLUSTERDOWN Hash slot not served"
    )
    redis = servers.cluster()
    assert list(await redis.primaries()) == ["b:2"]
    assert redis.name_of(HIGH) is None
    with pytest.raises(RedisUnavailable, match="CLUSTERDOWN"):
        await redis.run("GET", HIGH)
    await redis.close()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (b"10.0.0.7", "rediss://ada:secret@10.0.0.7:7001/0?ssl_ca_certs=ca"),
        (b"node.internal", "rediss://ada:secret@node.internal:7001/0?ssl_ca_certs=ca"),
        (b"fd00::7", "rediss://ada:secret@[fd00::7]:7001/0?ssl_ca_certs=ca"),
        (b"", "rediss://ada:secret@first:7001/0?ssl_ca_certs=ca"),
        (None, "rediss://ada:secret@first:7001/0?ssl_ca_certs=ca"),
        (b"?", "rediss://ada:secret@first:7001/0?ssl_ca_certs=ca"),
    ],
)
async def test_every_server_is_reached_as_the_named_one_is(
    servers: Servers, host: bytes | None, url: str
) -> None:
    """The same user, password, encryption and options; a server that does not know its own host
    is where it was asked."""
    named = "rediss://ada:secret@first:7000/0?ssl_ca_certs=ca"
    servers.says["first:7000/0?ssl_ca_certs=ca"] = lambda *_: [
        [0, SLOTS - 1, [host, 7001, b"id", []]]
    ]
    redis = servers.cluster(named)
    await redis.primaries()
    assert servers.urls == [named, url]


async def test_moved_without_a_host_is_on_the_host_that_was_asked(servers: Servers) -> None:
    servers.says["a:1"] = lambda *_: GONE
    servers.says["a:5"] = lambda *command: GONE if command[0] == "CLUSTER" else b"5"
    redis = servers.cluster()
    redis.follow(Moved(f"MOVED {slot_of(HIGH)} :5"))
    assert await redis.run("GET", HIGH) == b"5"
    await redis.close()
