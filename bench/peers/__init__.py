"""Other gateways, driven by the same requests against the same Redis settings.

They run the record script of `record.lua` once per request and do nothing else of what the
gateway does: no authentication, no plans, no metrics, no ledger behind them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha1
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bench.processes import Process, free_port, program
from bench.rig import Rig
from bench.traffic import USAGE_TYPE, Population

_HERE = Path(__file__).parent
_RECORD = (_HERE / "record.lua").read_text()
_HISTORY = (_HERE / "history.lua").read_text()
_SHA = sha1(_RECORD.encode(), usedforsecurity=False).hexdigest()
_LIMIT = 10**12
RECEIPTS = "receipt:"  # prefix of the receipt hashes, as every peer names it
_SEED_CHUNK = 1_000
_HISTORY_CHUNK = 10_000  # receipts a call: some 40 ms
_MODULES = (Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"))
_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


class Peer(msgspec.Struct, frozen=True):
    """A gateway to compare with; `missing` says what to install when it cannot run here."""

    name: str
    label: str
    make: Callable[[Rig], Process]
    missing: str | None


def peers(cache: Path) -> list[Peer]:
    """All we know; `cache` is where npm packages are kept."""
    fastify = cache / "fastify"
    return [
        Peer("nginx", "nginx + LuaJIT + lua-nginx-redis", _nginx, _nginx_missing()),
        Peer(
            "fastify",
            "Node: fastify + ioredis autopipelining",
            lambda rig: _fastify(rig, fastify),
            _fastify_missing(fastify),
        ),
        Peer("naive", "naive aiohttp, one EVALSHA per request through redis-py", _naive, None),
    ]


async def prepare(rig: Rig, population: Population, history: int = 0) -> None:
    """The peers' Redis for their next round: the script, the population's limits and as many
    receipts as the gateway's Redis keeps, because a fuller Redis is slower for everybody."""
    redis = rig.scratch_redis
    await redis.run("FLUSHALL")
    await redis.run("SCRIPT LOAD", _RECORD)
    names = [population.user(i) for i in range(population.users)]
    names += [population.organization(i) for i in range(population.organizations)]
    for at in range(0, len(names), _SEED_CHUNK):
        pipeline = redis.client.pipeline(transaction=False)
        for name in names[at : at + _SEED_CHUNK]:
            pipeline.hset(f"quota:{name}", f"limit:{USAGE_TYPE}", str(_LIMIT))
        await pipeline.execute()
    for at in range(0, history, _HISTORY_CHUNK):
        count = min(_HISTORY_CHUNK, history - at)
        await redis.run("EVAL", _HISTORY, 1, RECEIPTS, at, count)
    await rig.shorten(redis)


async def recorded(rig: Rig) -> int:
    """Entries the peers have appended since the last `prepare`."""
    return int(await rig.scratch_redis.run("XLEN", "usage"))


def install_fastify(cache: Path) -> None:
    """Installs the npm packages of the lock file. Raises `CalledProcessError`."""
    folder = cache / "fastify"
    folder.mkdir(parents=True, exist_ok=True)
    for file in (_HERE / "fastify").iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    npm = shutil.which("npm") or "npm"
    subprocess.run(
        [npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder,
        check=True,
        stdout=sys.stderr,
    )


def _nginx_program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path=_PATH)


def _nginx_modules() -> Path | None:
    for folder in _MODULES:
        if (folder / "ngx_http_lua_module.so").exists():
            return folder
    return None


def _nginx_missing() -> str | None:
    parts = [
        _nginx_program(),
        _nginx_modules(),
        Path("/usr/share/lua/5.1/nginx/redis.lua").exists(),
        any(Path("/usr/lib").glob("*/lua/5.1/cjson.so")),
    ]
    if all(parts):
        return None
    return "apt-get install libnginx-mod-http-lua lua-nginx-redis lua-cjson"


def _fastify_missing(folder: Path) -> str | None:
    if shutil.which("node") is None:
        return "install Node 20 or newer, then ./run bench --peers"
    lock = folder / "package-lock.json"
    wanted = (_HERE / "fastify" / "package-lock.json").read_bytes()
    if (folder / "node_modules").exists() and lock.exists() and lock.read_bytes() == wanted:
        return None
    return "./run bench --peers (installs it with npm)"


def _nginx(rig: Rig) -> Process:
    port, redis = free_port(), urlsplit(rig.scratch.url)
    words = {
        "folder": rig.folder,
        "modules": _nginx_modules(),
        "port": port,
        "redis_host": redis.hostname,
        "redis_port": redis.port,
        "redis_password": redis.password,
        "record_sha": _SHA,
        "script": _HERE / "nginx.lua",
    }
    text = (_HERE / "nginx.conf").read_text()
    for name, value in words.items():
        text = text.replace(f"{{{{{name}}}}}", str(value))
    conf = rig.folder / "nginx.conf"
    conf.touch(mode=0o600)  # it holds the password
    conf.write_text(text)
    return Process(
        "nginx",
        [_nginx_program() or "nginx", "-p", rig.folder, "-c", conf],
        folder=rig.folder,
        cores=rig.plan.server,
        port=port,
    )


def _fastify(rig: Rig, folder: Path) -> Process:
    port = free_port()
    shutil.copy(_HERE / "fastify" / "server.js", folder)  # where its packages are found
    return Process(
        "fastify",
        [shutil.which("node") or "node", folder / "server.js"],
        folder=rig.folder,
        cores=rig.plan.server,
        environ={**_environ(rig), "PORT": str(port), "NODE_ENV": "production"},
        port=port,
    )


def _naive(rig: Rig) -> Process:
    return program(
        "bench.peers.naive",
        _environ(rig),
        folder=rig.folder,
        cores=rig.plan.server,
        port=free_port(),
        name="naive",
    )


def _environ(rig: Rig) -> dict[str, str]:
    return {"REDIS_URL": rig.scratch.url, "RECORD_SHA": _SHA}
