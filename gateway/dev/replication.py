"""An embedded Redis that others follow, and those: DURABILITY=replicated on one machine."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from gateway.dev.servers import Valkey
from ledger import durability
from ledger.domain.durability import Server
from lua.connection import RedisUnavailable
from lua.multiplexer import Multiplexer


class Primary(Valkey):
    """A server whose replicas are waited for."""

    def _settings(self) -> dict[str, object]:
        return {
            **super()._settings(),
            "hz": 500,  # ticks a second, each of which may end a wait: see `lua.replicated`
            "repl-diskless-sync-delay": 0,  # 5 s by default, for further replicas that may come
        }


class Replica(Valkey):
    """A copy of `primary`, in a folder of its own below `data_dir`. Started when it follows the
    primary, which must run, and has all of it on disk."""

    def __init__(self, data_dir: Path, primary: Primary, number: int = 1) -> None:
        super().__init__(data_dir / f"replica-{number}")
        self.name = f"redis replica {number}"
        self._primary = primary

    def _settings(self) -> dict[str, object]:
        of = urlsplit(self._primary.url)
        return {
            **super()._settings(),
            "replicaof": f"{of.hostname} {of.port}",
            "masterauth": of.password,
        }

    async def _ping(self) -> bool:
        redis = Multiplexer(self.url)
        try:
            info = await durability.info(redis)
        except RedisUnavailable:
            return False
        finally:
            await redis.close()
        return info.get("master_link_status") == "up" and not Server.of(info, {}).rewriting
