"""What the commands of `./run` are told: by their variables, and by the `./run` that uses the same
data folder for what is not set. Every command's settings are read here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from gateway.datadir import DataDir
from ledger import settings
from ledger.settings import SettingError, Settings

_DURABILITY = {"DURABILITY", "DURABILITY_REPLICAS"}
# Of a job that is given the database's variables only, such as the backup's.
_OF_DATABASE = ("DATABASE_URL", "BACKUP_KEY_FILE", "BILLING_DATA_DIR", "AUDIT_SIGNING_KEY")


def data_dir(environ: Mapping[str, str]) -> DataDir:
    return DataDir(Path(environ.get("BILLING_DATA_DIR", "").strip() or ".data"))


def completed(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables, and what a running `./run` knows of those that are not set."""
    runtime = data_dir(environ).running()
    found = {} if runtime is None else runtime.variables
    given = {name for name in found if _is_given(name, environ)}
    if given & _DURABILITY:
        given |= _DURABILITY  # one setting in two variables
    return {**environ, **{name: one for name, one in found.items() if name not in given}}


def of_service(environ: Mapping[str, str]) -> Settings:
    """The settings of a command that works on both servers. Raises `SettingError`."""
    return settings.load(_with_database(environ))


def of_database(environ: Mapping[str, str], *, needed: bool = True) -> Settings:
    """The settings of a job that knows of the database only, if it is `needed` at all. Raises
    `SettingError`."""
    known = _with_database(environ) if needed else completed(environ)
    given = {name: one for name, one in known.items() if name.startswith(_OF_DATABASE)}
    unused = {"REDIS_URL": "redis://unused"}
    if not needed:
        unused["DATABASE_URL"] = "postgresql://unused"
    config = settings.load({**unused, **given})
    environment = environ.get("BILLING_ENV", "").strip() or "dev"
    if environment not in ("dev", "production"):  # else a mistyped one would be dev, with its key
        raise SettingError("BILLING_ENV", "must be one of dev, production")
    return msgspec.structs.replace(config, environment=environment)


def _with_database(environ: Mapping[str, str]) -> dict[str, str]:
    known = completed(environ)
    if not _is_given("DATABASE_URL", known):
        raise SettingError(
            "DATABASE_URL", "is not set and no ./run is up; start ./run, or set the variables"
        )
    return known


def _is_given(name: str, environ: Mapping[str, str]) -> bool:
    return any(environ.get(one, "").strip() for one in (name, f"{name}_FILE"))
