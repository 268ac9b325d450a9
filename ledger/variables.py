"""Reads one environment variable at a time; what is wrong with it is one line that names it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

T = TypeVar("T", bound=str)


class SettingError(ValueError):
    """An environment variable is missing or cannot be used; the message names it."""

    def __init__(self, variable: str, reason: str) -> None:
        self.variable = variable
        super().__init__(f"{variable}: {reason}")


class Secret:
    """A text that shows in no repr, log line or traceback."""

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(...)"


class Reader:
    """Reads one variable at a time and never repeats its value, which may be a secret."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def optional(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def text(self, name: str, default: str) -> str:
        return self.optional(name) or default

    def path(self, name: str) -> Path | None:
        value = self.optional(name)
        return None if value is None else Path(value)

    def secret(self, name: str) -> str | None:
        """The variable, or the content of the file that ``NAME_FILE`` points to."""
        path = self.optional(f"{name}_FILE")
        if path is None:
            return self.optional(name)
        try:
            return Path(path).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError):
            raise SettingError(f"{name}_FILE", "names a file that cannot be read") from None

    def url(self, name: str, schemes: tuple[str, ...]) -> str:
        value = self.secret(name)
        if value is None:
            raise SettingError(name, f"is required (example: {schemes[0]}://user@localhost/db)")
        try:
            parts = urlsplit(value)
            for host in parts.netloc.rpartition("@")[2].split(","):
                _ = urlsplit(f"//{host}").port  # not a number of a port: ValueError
        except ValueError:
            raise SettingError(
                name, f"is not a URL (example: {schemes[0]}://user@localhost/db)"
            ) from None
        if parts.scheme not in schemes:
            raise SettingError(name, f"must start with {schemes[0]}://")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self.optional(name)
        if value is None:
            return default
        digits = value.isascii() and value.isdigit() and len(value) <= len(str(high))
        if not digits or not low <= int(value) <= high:
            raise SettingError(name, f"must be a whole number from {low} to {high}")
        return int(value)

    def boolean(self, name: str, default: bool) -> bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        value = self.optional(name)
        if value is None:
            return default
        if value.lower() not in words:
            raise SettingError(name, "must be true or false")
        return words[value.lower()]

    def choice(self, name: str, default: T, allowed: tuple[T, ...]) -> T:
        value = self.text(name, default)
        for one in allowed:
            if value == one:
                return one
        raise SettingError(name, f"must be one of {', '.join(allowed)}")


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
