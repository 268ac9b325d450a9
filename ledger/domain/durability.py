"""What a Redis server's configuration and state are worth: the durability profile it keeps, and
each weakness with its way out."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping

import msgspec

SILENT_S = 5  # a replica reports once a second; from one that is silent for longer nothing comes
WAITAOF_SINCE = (7, 2)


class Profile(enum.IntEnum):
    """From the weakest to the strongest. UNKNOWN: the server does not let us ask."""

    NONE = 0
    UNKNOWN = 1
    DEV_FAST = 2
    DEFAULT = 3
    REPLICATED = 4

    @property
    def label(self) -> str:
        """As DURABILITY, metrics and /readyz spell it."""
        return self.name.lower().replace("_", "-")


class Wanted(msgspec.Struct, frozen=True):
    """The setting: a profile, and for `replicated` how many replicas must have synced."""

    profile: Profile
    replicas: int = 0


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself. None: it refuses CONFIG GET, as managed servers do."""

    primary: bool
    version: tuple[int, int]
    appendonly: bool
    rewriting: bool
    rewrites_ok: bool
    writes_ok: bool
    fsync: str | None
    unsynced_rewrite: bool | None
    eviction: str
    full: bool
    backlog_ttl_s: int | None
    in_sync: int  # replicas that follow closely

    @classmethod
    def of(cls, info: Mapping[str, str], config: Mapping[str, str]) -> Server:
        """From the replies of INFO and CONFIG GET; `config` is empty where it was refused."""
        major, minor = info.get("redis_version", "0.0").split(".")[:2]
        unsynced, ttl = config.get("no-appendfsync-on-rewrite"), config.get("repl-backlog-ttl")
        return cls(
            primary=info.get("role") == "master",
            version=(int(major), int(minor)),
            appendonly=info.get("aof_enabled") == "1",
            rewriting="1"
            in (info.get("aof_rewrite_in_progress"), info.get("aof_rewrite_scheduled")),
            rewrites_ok=info.get("aof_last_bgrewrite_status", "ok") == "ok",
            writes_ok=info.get("aof_last_write_status", "ok") == "ok",
            fsync=config.get("appendfsync"),
            unsynced_rewrite=None if unsynced is None else unsynced != "no",
            eviction=info.get("maxmemory_policy", "noeviction"),
            full=_is_full(info),
            backlog_ttl_s=None if ttl is None else int(ttl),
            in_sync=sum(map(_follows, _replicas(info))),
        )

    def after(self, before: Server | None) -> Server:
        """This look, knowing the one before: an append-only file that was switched on holds
        nothing until its first rewrite is complete, and INFO calls it enabled meanwhile."""
        if before is not None and not before.appendonly and self.rewriting:
            return msgspec.structs.replace(self, appendonly=False)
        return self


class Weakness(msgspec.Struct, frozen=True):
    """`leaves`: the best profile kept in spite of it; REPLICATED when it only needs care. `stops`:
    Redis itself takes no usage meanwhile."""

    leaves: Profile
    line: str
    stops: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """What a server is worth beside what is wanted of it."""

    wanted: Profile
    in_force: Profile
    weaknesses: tuple[Weakness, ...]

    @property
    def kept(self) -> bool:
        return self.in_force >= self.wanted

    @property
    def stopped(self) -> bool:
        return any(one.stops for one in self.weaknesses)

    @property
    def reasons(self) -> list[str]:
        """What is in the way of the setting or needs care, worst first."""
        shown = [
            one
            for one in self.weaknesses
            if one.leaves < self.wanted or one.leaves is Profile.REPLICATED
        ]
        return [one.line for one in sorted(shown, key=lambda one: one.leaves)]


def judge(server: Server, wanted: Wanted) -> Verdict:
    """The profile in force. `replicated` is one only where it is asked for: the step that makes it
    is the gateway's own."""
    found = tuple(_weaknesses(server, wanted.replicas))
    best = Profile.REPLICATED if wanted.replicas else Profile.DEFAULT
    return Verdict(wanted.profile, min([best, *(one.leaves for one in found)]), found)


def worst(verdicts: Mapping[str, Verdict]) -> Verdict:
    """Of the servers of a cluster by name: what is kept wherever usage is recorded. A server that
    takes none itself stops its own partitions, and everything only where all do."""
    every = list(verdicts.values())
    stopped = all(one.stopped for one in every)
    return Verdict(
        every[0].wanted,
        min(one.in_force for one in every),
        tuple(
            msgspec.structs.replace(
                one, line=one.line.replace("redis:", f"redis {name}:", 1), stops=stopped
            )
            for name, verdict in verdicts.items()
            for one in verdict.weaknesses
        ),
    )


def refusal(verdict: Verdict) -> str | None:
    """Why production does not start on this server: one line, None when it may."""
    if verdict.kept:
        return None
    wanted, kept = verdict.wanted.label, verdict.in_force.label
    return f"DURABILITY: is {wanted}, in force is {kept}: {'; '.join(verdict.reasons)}"


def _weaknesses(server: Server, replicas: int) -> Iterator[Weakness]:
    if not server.primary:
        yield Weakness(
            Profile.NONE, "redis: REDIS_URL is a replica; point it at the primary", stops=True
        )
    if server.eviction != "noeviction":
        yield Weakness(
            Profile.NONE,
            f"redis: maxmemory-policy {server.eviction} may evict recorded usage; "
            "CONFIG SET maxmemory-policy noeviction",
        )
    yield from _of_the_file(server)
    if replicas:
        yield from _of_replicas(server, replicas)
    if server.in_sync and server.backlog_ttl_s:
        # Without its backlog a primary changes its replication id, which fences every partition.
        yield Weakness(
            Profile.REPLICATED,
            "redis: repl-backlog-ttl makes a primary without replicas wait for the ledger; "
            "CONFIG SET repl-backlog-ttl 0",
        )
    if server.full:
        yield Weakness(
            Profile.REPLICATED,
            "redis: maxmemory is reached, nothing can be recorded; raise maxmemory",
            stops=True,
        )


def _of_the_file(server: Server) -> Iterator[Weakness]:
    if not server.appendonly:
        yield Weakness(
            Profile.NONE,
            "redis: appendonly is off, or its first rewrite is not complete: a restart loses "
            "undrained usage; CONFIG SET appendonly yes",
        )
    elif server.fsync is None or server.unsynced_rewrite is None:
        yield Weakness(
            Profile.UNKNOWN,
            "redis: appendfsync cannot be checked, CONFIG GET is refused; "
            "allow it to this user (ACL SETUSER ... +config|get)",
        )
    else:
        yield from _of_syncing(server.fsync, server.unsynced_rewrite)
    if not server.writes_ok:
        yield Weakness(
            Profile.NONE,
            "redis: its append-only file cannot be written; look at its disk",
            stops=True,
        )
    elif not server.rewrites_ok:
        yield Weakness(
            Profile.REPLICATED,
            "redis: the last rewrite of its append-only file failed, it grows until the disk is "
            "full; look at its log, then BGREWRITEAOF",
        )


def _of_syncing(fsync: str, unsynced_rewrite: bool) -> Iterator[Weakness]:
    if fsync != "always":
        everysec = fsync == "everysec"
        seconds = "2" if everysec else "30"  # Linux writes what nobody syncs after 30 s
        yield Weakness(
            Profile.DEV_FAST if everysec else Profile.NONE,
            f"redis: appendfsync {fsync} may lose the last {seconds} seconds on power loss; "
            "CONFIG SET appendfsync always",
        )
    if unsynced_rewrite:
        yield Weakness(
            Profile.NONE,
            "redis: no-appendfsync-on-rewrite syncs nothing during a rewrite; "
            "CONFIG SET no-appendfsync-on-rewrite no",
        )


def _of_replicas(server: Server, replicas: int) -> Iterator[Weakness]:
    if server.version < WAITAOF_SINCE:
        yield Weakness(
            Profile.DEFAULT,
            "redis: is older than 7.2 and has no WAITAOF; upgrade, or DURABILITY=default",
        )
    if server.in_sync < replicas:
        yield Weakness(
            Profile.DEFAULT,
            f"redis: {server.in_sync} of {replicas} replicas are in sync; "
            "start them, or correct DURABILITY_REPLICAS",
        )


def _is_full(info: Mapping[str, str]) -> bool:
    """As Redis itself counts, which leaves out the buffers of replicas and of the file."""
    most = int(info.get("maxmemory", "0"))
    used = int(info.get("used_memory", "0")) - int(info.get("mem_not_counted_for_evict", "0"))
    return 0 < most < used


def _replicas(info: Mapping[str, str]) -> Iterator[dict[str, str]]:
    for name, value in info.items():
        if name.startswith("slave") and name[5:].isdigit():
            yield dict(part.split("=", 1) for part in value.split(",") if "=" in part)


def _follows(replica: Mapping[str, str]) -> bool:
    lag = replica.get("lag", "")
    return replica.get("state") == "online" and lag.isdigit() and int(lag) <= SILENT_S
