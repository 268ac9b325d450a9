"""The key of the backups: 32 bytes, as 64 hexadecimal digits in a private file."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from gateway.datadir import DataDir, write_private
from ledger.settings import SettingError, Settings

_VARIABLE = "BACKUP_KEY_FILE"
_DIGITS = 64


def key_of(config: Settings) -> bytes:
    """The key that the settings name, or the dev environment's own. Raises `SettingError`."""
    if config.backup_key_file:
        return backup_key(config.backup_key_file)
    if not config.is_dev:
        raise SettingError(_VARIABLE, "is required: the file of the key of the backups")
    return backup_key(dev_key_file(config.data_dir))


def backup_key(path: Path) -> bytes:
    """Reads the key. Raises `SettingError`."""
    try:
        with path.open("rb") as file:
            _refuse_wide(path, os.fstat(file.fileno()))
            text = file.read(_DIGITS + 2).strip()
    except OSError as error:
        raise SettingError(_VARIABLE, f"{path} cannot be read: {error.strerror}") from None
    try:
        key = bytes.fromhex(text.decode())
    except ValueError:
        key = b""
    if len(text) != _DIGITS or len(key) != _DIGITS // 2:
        raise SettingError(
            _VARIABLE, f"{path} must hold {_DIGITS} hexadecimal digits: openssl rand -hex 32"
        )
    return key


def dev_key_file(data_dir: Path) -> Path:
    """The key file of a dev environment, made on first use."""
    data = DataDir(data_dir)
    data.create()
    path = data.path / "backup-key"
    if not path.exists():
        draft = path.with_name(f"backup-key.{os.getpid()}.draft")
        write_private(draft, secrets.token_hex(_DIGITS // 2).encode() + b"\n")
        try:
            os.link(draft, path)  # refuses where another process was first
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path


def _refuse_wide(path: Path, found: os.stat_result) -> None:
    """Root's file may be read by our group: so an orchestrator hands secrets to those who are not
    root. Anything wider is no secret any more."""
    allowed = 0o640 if found.st_uid == 0 and os.geteuid() != 0 else 0o600
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o177 & ~allowed:
        raise SettingError(
            _VARIABLE, f"{path} may be read by others (mode {mode:04o}): chmod 600 {path}"
        )
