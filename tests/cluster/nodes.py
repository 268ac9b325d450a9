"""A real cluster on loopback: three primaries, each with a replica."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from gateway.dev.replication import Primary
from gateway.dev.servers import LOOPBACK
from lua import keys
from lua.cluster import slot_of
from lua.connection import RedisConnection, RedisUnavailable

SLOTS = 16384
NODE_TIMEOUT_MS = 1000  # after which a node that does not answer is held to have failed


class Node(Primary):
    """One server of the cluster; all have the same password."""

    def __init__(self, folder: Path, number: int) -> None:
        super().__init__(folder / f"node-{number}")
        self.name = f"node {number}"
        self.id = ""

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.access.port}"

    @property
    def bus(self) -> int:
        return self.access.port - 10_000  # by default 10,000 above: where outgoing ones begin

    def give(self, password: str) -> None:
        """Before its first start."""
        access = self._choose_access()
        access.password = password
        (self.folder / "access.json").write_bytes(msgspec.json.encode(access))

    def _settings(self) -> dict[str, object]:
        return {
            **super()._settings(),
            "masterauth": self.access.password,
            "cluster-enabled": "yes",
            "cluster-port": self.bus,
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "cluster-require-full-coverage": "no",
            "cluster-replica-validity-factor": 0,
            "cluster-allow-replica-migration": "no",  # who has given away its slots stays
        }

    async def ask(self, *command: Any) -> Any:
        """As its operator, over a connection of its own."""
        redis = RedisConnection(self.url)
        try:
            return await redis.run(*command)
        finally:
            await redis.close()

    async def is_primary(self) -> bool:
        return bool((await self.ask("INFO", "replication"))["role"] == "master")

    async def follows(self) -> bool:
        said = await self.ask("INFO", "replication")
        return bool(said["role"] == "slave" and said["master_link_status"] == "up")

    async def owns(self, at: int) -> bool:
        for first, last, owner, *_ in await self.ask("CLUSTER", "SLOTS"):
            if first <= at <= last:
                return bool(owner[2].decode() == self.id)
        return False


class Nodes:
    def __init__(self, every: list[Node]) -> None:
        self.every = every
        self.primaries = every[:3]  # as it was formed
        self.replicas = every[3:]

    @property
    def url(self) -> str:
        return self.every[0].url

    def owner_of(self, partition: int) -> Node:
        return self.primaries[slot(partition) * 3 // SLOTS]

    def partitions_of(self, node: Node, partitions: int) -> list[int]:
        return [one for one in range(partitions) if self.owner_of(one) is node]

    async def form(self) -> None:
        first = self.every[0]
        for number, node in enumerate(self.every):
            node.id = (await node.ask("CLUSTER", "MYID")).decode()
            await node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if node is not first:
                await first.ask("CLUSTER", "MEET", LOOPBACK, node.access.port, node.bus)
        for number, node in enumerate(self.primaries):
            begin, end = -(-SLOTS * number // 3), -(-SLOTS * (number + 1) // 3) - 1
            await node.ask("CLUSTER", "ADDSLOTSRANGE", begin, end)
        await self.until_known()
        for primary, replica in zip(self.primaries, self.replicas, strict=True):
            await replica.ask("CLUSTER", "REPLICATE", primary.id)
        await self.until_whole()

    async def until_known(self) -> None:
        for node in self.every:
            await until(lambda node=node: self._knows_all(node))  # type: ignore[misc]

    async def until_whole(self) -> None:
        """Every slot is served, and every replica follows."""
        for node in self.every:
            await until(lambda node=node: _sound(node))  # type: ignore[misc]
        for replica in self.replicas:
            await until(replica.follows)

    async def until_follows(self, replica: Node) -> None:
        await until(replica.follows)

    async def _knows_all(self, node: Node) -> bool:
        said = (await node.ask("CLUSTER", "NODES")).decode()
        return said.count("\n") == len(self.every) and "handshake" not in said

    async def empty(self) -> None:
        for node in self.primaries:
            await node.ask("FLUSHALL")

    async def promote(self, replica: Node, *how: str) -> None:
        """Its primary hands over, or by `FORCE`, without it."""
        await replica.ask("CLUSTER", "FAILOVER", *how)
        await until(replica.is_primary)

    async def begin_move(self, partition: int, source: Node, target: Node) -> None:
        at = slot(partition)
        await target.ask("CLUSTER", "SETSLOT", at, "IMPORTING", source.id)
        await source.ask("CLUSTER", "SETSLOT", at, "MIGRATING", target.id)

    async def move_keys(self, names: Iterable[str | bytes], source: Node, target: Node) -> None:
        port, password = target.access.port, target.access.password
        await source.ask("MIGRATE", LOOPBACK, port, "", 0, 5000, "AUTH", password, "KEYS", *names)

    async def end_move(self, partition: int, source: Node, target: Node) -> None:
        at = slot(partition)
        while names := await source.ask("CLUSTER", "GETKEYSINSLOT", at, 1000):
            await self.move_keys(names, source, target)
        for node in (target, source, *self.primaries):
            await node.ask("CLUSTER", "SETSLOT", at, "NODE", target.id)

    async def move(self, partition: int, source: Node, target: Node) -> None:
        """Moves a partition key by key, as every version of Redis Cluster can."""
        await self.begin_move(partition, source, target)
        await self.end_move(partition, source, target)

    async def move_at_once(self, partition: int, source: Node, target: Node) -> None:
        """Atomic slot migration, which Valkey has from 9 on."""
        at = slot(partition)
        await source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", at, at, "NODE", target.id)
        await until(lambda: target.owns(at))


@asynccontextmanager
async def formed_in(folder: Path) -> AsyncIterator[Nodes]:
    every = [Node(folder, number) for number in range(6)]
    password = secrets.token_urlsafe(24)
    for node in every:
        node.folder.mkdir(parents=True)
        node.give(password)
    async with AsyncExitStack() as running:
        await asyncio.gather(*(running.enter_async_context(node) for node in every))
        nodes = Nodes(every)
        await nodes.form()
        yield nodes


def slot(partition: int) -> int:
    return slot_of(keys.meta(partition))


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                if await holds():
                    return
            except RedisUnavailable:
                pass
            await asyncio.sleep(0.02)


async def _sound(node: Node) -> bool:
    said = (await node.ask("CLUSTER", "INFO")).decode()
    return "cluster_state:ok" in said and f"cluster_slots_ok:{SLOTS}" in said
