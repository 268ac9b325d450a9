"""What Redis alone can do with the service's own record script: calls made ahead, many under
way, no HTTP, no validation. The limit that a gateway can approach and not pass."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import hiredis

from bench import cpus
from bench.generator import SECOND_NS, Sample
from bench.rig import Rig
from bench.traffic import QUANTITY, SMALL, USAGE_TYPE
from ledger import clock
from ledger.domain.period import Interval
from ledger.domain.usage import FINGERPRINT_BYTES, Payload, Terms, encode_payload, encode_terms
from lua import keys
from lua.keys import Account, pool_of
from lua.multiplexer import Multiplexer
from lua.scripts import Scripts
from lua.types import Event, Limit, LoadOutcome, Outcome

CALL_SIZES = (1, 8, 32, 100)  # events in one call
_PARTITION = 0
_UNDER_WAY = 16  # calls sent and not yet answered
_EVENTS_AHEAD = 2_000  # made before the watch starts
_DAY_MS = 86_400_000
_LIMIT = 10**12
_CAP = 10**9
_RECORDED = int(Outcome.RECORDED)
_INTERVAL: Interval = "month"


async def prepare(rig: Rig) -> None:
    """An empty Redis, vouched for, with the quotas of the small population in one partition."""
    await rig.scratch_redis.run("FLUSHALL")
    await rig.shorten(rig.scratch_redis)
    redis = Multiplexer(rig.scratch.url)
    try:
        await _load(Scripts(redis))
    finally:
        await redis.close()


async def _load(scripts: Scripts) -> None:
    recovery = await scripts.recover(
        _PARTITION, row_replid="", epoch=1, cursor="0-0", drained=0, acked="0-0", offset=0
    )
    now = clock.now_ms()
    terms = Terms(os.urandom(16), "bench_wide", 1, 730_120, _INTERVAL, "UTC")
    subjects = {who for index in range(SMALL.users) for who in _subjects(index)}
    loads = (
        scripts.load(
            _PARTITION,
            subject,
            epoch=recovery.epoch,
            version=1,
            revision=0,
            starts=now - _DAY_MS,
            ends=now + 28 * _DAY_MS,
            good_until=now + 28 * _DAY_MS,
            cursor="0-0",
            through="0-0",
            terms=encode_terms(terms),
            blocked="",
            pool_version=1,
            limits=[Limit(USAGE_TYPE, "h", _LIMIT, 0, 0, 0)],
        )
        for subject in subjects
    )
    assert set(await asyncio.gather(*loads)) == {LoadOutcome.LOADED}, "a quota was not loaded"
    await scripts.record(_events(0, 1), enforce=True, cap=_CAP)  # loads the script


async def calls(call: int, size: int, count: int) -> list[bytes]:
    """Packed commands of `size` events each, as the gateway would send them; `call` numbers the
    first."""
    packer = _Packer()
    scripts = Scripts(packer)
    for number in range(call, call + count):
        await scripts.record(_events(number, size), enforce=True, cap=_CAP)
    return packer.commands


async def throughput(rig: Rig, size: int, seconds: float) -> float:
    """Events per second in calls of `size`, measured for so many seconds."""
    redis, events, spent, call = _connect(rig), 0, 0, 0
    with redis:
        while spent < seconds * SECOND_NS:
            ahead = await calls(call, size, max(_EVENTS_AHEAD // size, 2 * _UNDER_WAY))
            spent += await asyncio.to_thread(_send_all, redis, ahead, rig.plan.server)
            call += len(ahead)
            events += len(ahead) * size
    return events * SECOND_NS / spent


async def round_trips(rig: Rig, count: int) -> Sample:
    """The latency of one bare call after the other, one event each."""
    ahead = await calls(0, 1, count)
    with _connect(rig) as redis:
        return await asyncio.to_thread(_one_by_one, redis, ahead, rig.plan.server)


async def receipt_bytes(rig: Rig) -> tuple[float, float]:
    """Memory per receipt, key and hash included, and receipts per hash (its fill decides)."""
    redis = rig.scratch_redis
    size = fields = hashes = 0
    async for key in redis.client.scan_iter(f"{keys.receipts(_PARTITION)}*", count=1000):
        size += int(await redis.run("MEMORY USAGE", key, "SAMPLES", 0))
        fields += int(await redis.run("HLEN", key))
        hashes += 1
    return (size / fields, fields / hashes) if fields else (0.0, 0.0)


def _subjects(index: int) -> tuple[bytes, bytes]:
    user, organization = SMALL.member(index)
    account = Account(UUID(user), UUID(organization))
    pool = pool_of(account.who)
    assert pool is not None
    return account.who, pool


def _events(call: int, size: int) -> list[Event]:
    """The events of one call belong to one organisation, as those of a batch do."""
    step = SMALL.organizations
    events = []
    for place in range(size):
        who, _ = _subjects(call + place * step)
        key = f"{call:x}-{place:x}-{os.urandom(4).hex()}"
        payload = encode_payload(Payload(key, None, None, "service-dev"))
        print_ = os.urandom(FINGERPRINT_BYTES)
        events.append(
            Event(
                partition=_PARTITION,
                who=who,
                usage_id=os.urandom(16),
                fingerprint=print_,
                usage_type=USAGE_TYPE,
                units=QUANTITY,
                occurred_at=None,
                payload=payload,
            )
        )
    return events


class _Packer:
    """Stands in for a connection: keeps what would be sent, for one partition."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    async def evalsha(self, sha: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        self.commands.append(hiredis.pack_command(("EVALSHA", sha, len(keys), *keys, *args)))
        return [[b""]]

    async def eval(self, source: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        raise AssertionError("never asked for")

    async def transaction(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        raise AssertionError("never asked for")


def _connect(rig: Rig) -> socket.socket:
    address = urlsplit(rig.scratch.url)
    made = socket.create_connection((address.hostname or "", address.port or 0), timeout=30)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.sendall(f"AUTH {address.password}\r\n".encode())
    assert made.recv(64) == b"+OK\r\n", "Redis refuses the password"
    return made


def _send_all(redis: socket.socket, commands: Sequence[bytes], cores: cpus.Cores) -> int:
    """Nanoseconds until all are answered, never more than `_UNDER_WAY` at once."""
    reader = hiredis.Reader()
    with cpus.pinned(cores):
        began = time.monotonic_ns()
        redis.sendall(b"".join(commands[:_UNDER_WAY]))
        sent, answered = min(_UNDER_WAY, len(commands)), 0
        while answered < len(commands):
            reader.feed(redis.recv(1 << 18))
            before = answered
            while (reply := reader.gets()) is not False:
                assert isinstance(reply, list) and reply[-1][0] == _RECORDED, f"said: {reply}"
                answered += 1
            more = commands[sent : sent + answered - before]
            if more:
                redis.sendall(b"".join(more))
                sent += len(more)
        return time.monotonic_ns() - began


def _one_by_one(redis: socket.socket, commands: Sequence[bytes], cores: cpus.Cores) -> Sample:
    sample = Sample()
    with cpus.pinned(cores):
        for command in commands:
            sample.latencies.append(_send_all(redis, [command], frozenset()))
    return sample
