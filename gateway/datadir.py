"""The folder of everything `./run` keeps: private files, one lock, who is running."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import IO

import msgspec

from ledger import clock
from ledger.settings import SettingError

_VARIABLE = "BILLING_DATA_DIR"
_LOCK_WAIT_S = 0.5  # readers of the runtime file hold the lock for an instant


class Runtime(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a second shell reaches the servers that a running supervisor embeds, and what they were
    made to keep."""

    database_url: str
    redis_url: str
    port: int | None = None
    durability: str = "default"
    durability_replicas: int = 0
    partitions: int = 16

    @property
    def variables(self) -> dict[str, str]:
        """The same as environment variables."""
        numbers = {
            "PORT": self.port,
            "DURABILITY_REPLICAS": self.durability_replicas or None,
            "PARTITIONS": self.partitions,
        }
        return {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "DURABILITY": self.durability,
            **{name: str(number) for name, number in numbers.items() if number is not None},
        }


class DataDir:
    """A private folder. As a context manager it is locked: one supervisor at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: IO[bytes] | None = None

    def create(self) -> None:
        """Makes the folder, readable by its owner only. Raises `SettingError`."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingError(_VARIABLE, f"{self.path} cannot be made: {error.strerror}") from None
        try:  # a real file: for root every folder looks writable
            write_private(self.path / "probe", b"")
            (self.path / "probe").unlink()
        except OSError as error:
            raise SettingError(
                _VARIABLE, f"{self.path} is not writable: {error.strerror}"
            ) from None

    def __enter__(self) -> DataDir:
        self.create()
        self._lock = self._open_lock()
        deadline = clock.monotonic() + _LOCK_WAIT_S
        while not _try_lock(self._lock):
            if clock.monotonic() > deadline:
                self._lock.close()
                raise SettingError(
                    _VARIABLE,
                    f"{self.path} is in use by another ./run; stop it, or set another folder",
                )
            time.sleep(0.02)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._lock is not None
        self._runtime_file.unlink(missing_ok=True)
        self._lock.close()

    def publish(self, runtime: Runtime) -> None:
        """Tells other shells where the servers are, until the lock is given up."""
        write_private(self._runtime_file, msgspec.json.encode(runtime))

    def running(self) -> Runtime | None:
        """The servers of the supervisor that holds the lock now, if one does."""
        try:
            runtime = msgspec.json.decode(self._runtime_file.read_bytes(), type=Runtime)
            with self._open_lock() as lock:
                left_behind = _try_lock(lock)
        except (OSError, SettingError, msgspec.MsgspecError):
            return None
        return None if left_behind else runtime

    @property
    def _runtime_file(self) -> Path:
        return self.path / "runtime.json"

    def _open_lock(self) -> IO[bytes]:
        path = self.path / "lock"
        try:
            return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        except OSError as error:
            raise SettingError(_VARIABLE, f"{path} cannot be opened: {error.strerror}") from None


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_private(path: Path, content: bytes) -> None:
    """Replaces a file in one step, durably, readable by its owner only."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
