"""What `./run` does: servers, migrations, ledger and gateway, started and stopped as one thing.

Nothing survives us: on Ctrl-C all stop in order, and after `kill -9` the kernel ends them.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import msgspec

from gateway.children import Child, StartError
from gateway.datadir import DataDir, Runtime
from gateway.dev.postgres import Postgres
from gateway.dev.replication import Primary, Replica
from gateway.dev.servers import Server, Valkey
from gateway.dev.tokens import dev_key, mint
from gateway.supervise import keep_alive, until_stopped
from ledger import clock, db, settings
from ledger.settings import SettingError, Settings

_READY_TIMEOUT_S = 60.0
_READY_POLL_S = 0.05

# Stand-ins for the URLs of servers that are not started yet.
_EMBEDDED = {"REDIS_URL": "redis://embedded", "DATABASE_URL": "postgresql://embedded"}
_GIVEN_BY = ("REDIS_URL", "REDIS_URL_FILE", "DATABASE_URL", "DATABASE_URL_FILE")

_READY = "\nbilling is ready: {url}   (stop it with Ctrl-C)\n"
_EXAMPLES = """
Record usage:
  curl -X POST {url}/api/v1/billing/usage \\
    -H "Content-Type: application/json" \\
    -d '{{"user_id": "test-user", "usage_type": "api_calls", "quantity": 10}}'

The same as an authenticated service, then the quota left:
  TOKEN={token}
  curl -X POST {url}/api/v1/billing/usage -H "Authorization: Bearer $TOKEN" \\
    -H "Content-Type: application/json" \\
    -d '{{"user_id": "test-user", "usage_type": "api_calls", "quantity": 10}}'
  curl {url}/api/v1/billing/quota/test-user -H "Authorization: Bearer $TOKEN"

Another token: ./run token --role user --user test-user
"""


class Program(Child):
    """One of our own packages, run as `python -m <package>`."""

    def __init__(self, package: str, environ: Mapping[str, str]) -> None:
        super().__init__()
        self.name = package
        self.vital = package == "gateway"  # without its ledger it goes on, and says that it lags
        self._environ = environ

    async def start(self) -> None:
        # -P: a folder of the same name where the user stands is not ours.
        await self._launch([sys.executable, "-P", "-m", self.name], env=self._environ)


async def up(environ: Mapping[str, str]) -> int:
    """Everything, until it is told to stop. Raises `SettingError` or `StartError`."""
    return await until_stopped(_up(environ))


async def infrastructure(environ: Mapping[str, str]) -> int:
    """Only Redis and Postgres, until it is told to stop. Raises like `up`."""
    return await until_stopped(_infrastructure(environ))


async def _up(environ: Mapping[str, str]) -> None:
    wanted = _read(environ)
    _require_free_port(wanted)
    data = DataDir(wanted.data_dir)
    data.create()
    token = mint(dev_key(data.path), "service") if wanted.is_dev else None
    async with AsyncExitStack() as stack:
        servers = await _start_servers(stack, data, wanted)
        runtime = _runtime(wanted, servers)
        if servers:
            data.publish(runtime)
        await migrate(runtime.database_url)
        variables = {
            **environ,
            "BILLING_DATA_DIR": str(data.path),
            "DATABASE_URL": runtime.database_url,
            "REDIS_URL": runtime.redis_url,
        }
        programs = [Program(name, variables) for name in ("ledger", "gateway")]
        for program in programs:
            stack.push_async_callback(program.stop)
            await program.start()
        await keep_alive([*servers, *programs], _announce(wanted, token))


async def _infrastructure(environ: Mapping[str, str]) -> None:
    wanted = _read({**environ, **dict.fromkeys(_GIVEN_BY, ""), "BILLING_ENV": "dev"})
    data = DataDir(wanted.data_dir)
    async with AsyncExitStack() as stack:
        servers = await _start_servers(stack, data, wanted)
        runtime = _runtime(wanted, servers)
        data.publish(msgspec.structs.replace(runtime, port=None))
        print(f"export REDIS_URL='{runtime.redis_url}' DATABASE_URL='{runtime.database_url}'")
        sys.stdout.flush()
        await keep_alive(servers)


async def migrate(database_url: str) -> int:
    """Brings the database to this version; how many migrations that took. Raises `StartError`."""
    from ledger import migrate

    try:
        return await migrate.migrate(database_url)
    except Exception as error:  # whatever it is, the database is not usable
        if (line := db.misconfigured(error)) is not None:
            raise StartError(line, exit_code=2) from None
        cause = str(error) or type(error).__name__
        raise StartError(f"the database cannot be migrated: {cause}") from error


def _read(environ: Mapping[str, str]) -> Settings:
    """The settings as the programs will read them, with `_EMBEDDED` for each server to embed."""
    given = {name for name in _GIVEN_BY if environ.get(name, "").strip()}
    embedded = {}
    if environ.get("BILLING_ENV", "").strip() != "production":  # which requires both
        for name, url in _EMBEDDED.items():
            if not {name, f"{name}_FILE"} & given:
                embedded[name] = url
    return settings.load_gateway({**environ, **embedded})


async def _start_servers(stack: AsyncExitStack, data: DataDir, wanted: Settings) -> list[Server]:
    servers: list[Server] = []
    if wanted.redis_url == _EMBEDDED["REDIS_URL"]:
        servers += _redis(data, wanted)
    if wanted.database_url == _EMBEDDED["DATABASE_URL"]:
        servers.append(Postgres(data.path))
    if servers:
        stack.enter_context(data)  # locked for as long as a server uses it
    for server in servers:
        stack.push_async_callback(server.stop)
        await server.start()
    return servers


def _redis(data: DataDir, wanted: Settings) -> list[Server]:
    """A Redis that keeps what DURABILITY promises, and those that follow it."""
    if wanted.durability == "dev-fast":
        return [Valkey(data.path, fsync="everysec")]
    if not wanted.durability_replicas:
        return [Valkey(data.path)]
    primary = Primary(data.path)
    numbers = range(1, wanted.durability_replicas + 1)
    return [primary, *(Replica(data.path, primary, number) for number in numbers)]


def _runtime(wanted: Settings, servers: Sequence[Server]) -> Runtime:
    urls = {server.name: server.url for server in servers}
    return Runtime(
        database_url=urls.get(Postgres.name, wanted.database_url),
        redis_url=urls.get(Valkey.name, wanted.redis_url),
        port=wanted.port,
        durability=wanted.durability,
        durability_replicas=wanted.durability_replicas,
        partitions=wanted.partitions,
    )


def _require_free_port(wanted: Settings) -> None:
    try:
        found = socket.getaddrinfo(wanted.host, wanted.port, type=socket.SOCK_STREAM)
    except socket.gaierror:
        raise SettingError("HOST", "is not a known host name or address") from None
    for family, _, _, _, address in found:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    way_out = f"another one: PORT={wanted.port % 65535 + 1} ./run"
                    raise SettingError("PORT", f"{wanted.port} is in use; try {way_out}") from None
                if error.errno == errno.EACCES:
                    raise SettingError("PORT", f"{wanted.port} needs more rights") from None


async def _announce(wanted: Settings, token: str | None) -> None:
    """Waits for the gateway, then says how to call it."""
    deadline = clock.monotonic() + _READY_TIMEOUT_S
    while (answer := await asyncio.to_thread(_readyz, wanted))[0] != 200:
        if clock.monotonic() > deadline:
            raise StartError(f"the gateway is not ready: /readyz says {answer[1] or 'nothing'}")
        await asyncio.sleep(_READY_POLL_S)
    host = f"[{wanted.host}]" if ":" in wanted.host else wanted.host
    text = _READY + _EXAMPLES if token else _READY
    print(text.format(url=f"http://{host}:{wanted.port}", token=token), flush=True)


def _readyz(wanted: Settings) -> tuple[int, str]:
    # Not urllib: it would ask the environment's proxy.
    connection = http.client.HTTPConnection(wanted.host, wanted.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()
