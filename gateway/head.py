"""The head of a request on the raw protocol: is it one that is served there?"""

from __future__ import annotations

import re

import msgspec

from gateway.route import BASE
from gateway.routes import ROUTES

MAX_BODY = 64 * 1024  # a larger one is unusual; aiohttp has the limit that is answered
_JSON = (b"application/json", b"application/json; charset=utf-8")
_UNUSUAL = {b"transfer-encoding", b"expect", b"upgrade", b"content-encoding", b"connection"}
_WANTED = {
    b"authorization",
    b"idempotency-key",
    b"content-type",
    b"content-length",
    b"host",
}
_LENGTH = re.compile(rb"[0-9]{1,6}\Z")  # int() refuses thousands of digits by an error
_LONGEST_LENGTH = 19  # digits of 2^63
_POSTS = ("record_usage", "record_usage_batch", "check_quota")
# Plain names only: what is escaped, or asks for more, is for aiohttp to read.
_QUOTA = re.compile(
    f"{BASE}/quota/(?!check$)([A-Za-z0-9._-]+)(?:\\?organization_id=([A-Za-z0-9._-]+))?$".encode()
)


class Target(msgspec.Struct, frozen=True):
    """What a request is for: a route of the table by name, and the values in its path."""

    name: str
    path: str
    user_id: str = ""
    organization_id: str | None = None


_TARGETS = {one.path.encode(): Target(one.name, one.path) for one in ROUTES if one.name in _POSTS}
_NOWHERE = Target("", "")


class Head:
    """What the parser reports of a request's head, and whether it is one we serve here."""

    def __init__(self) -> None:
        self.peer: str | None = None  # the address that the connection comes from
        self.clear()

    def clear(self) -> None:
        self.complete = False
        self.length = 0
        self.target = _NOWHERE
        self._url = b""
        self._usual = True
        self._found: dict[bytes, bytes] = {}

    def on_url(self, url: bytes) -> None:
        self._url += url  # in pieces when it is long

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _WANTED:
            if name in self._found:
                self._usual = False  # given twice: which is meant is for the strict way to say
            self._found[name] = value.strip(b" \t")  # as aiohttp does
        elif name in _UNUSUAL and not (name == b"connection" and value.lower() == b"keep-alive"):
            self._usual = False

    def on_headers_complete(self) -> None:
        self.complete = True

    @property
    def is_absurd(self) -> bool:
        """A length that neither we nor aiohttp could make a number of."""
        return len(self._found.get(b"content-length", b"")) > _LONGEST_LENGTH

    def is_served(self, method: bytes, version: str) -> bool:
        """Whether the request is one of ours, and plain; then `target` and `length` are known."""
        if not self._usual or version != "1.1":
            return False
        if method == b"POST":
            return self._is_post()
        return method == b"GET" and self._is_get()

    def _is_post(self) -> bool:
        target, found = _TARGETS.get(self._url), self._found
        length = found.get(b"content-length", b"")
        if target is None or not _LENGTH.match(length) or not 0 < int(length) <= MAX_BODY:
            return False
        self.target, self.length = target, int(length)
        return found.get(b"content-type", b"").lower() in _JSON

    def _is_get(self) -> bool:
        found = _QUOTA.match(self._url)
        if found is None or self._found.get(b"content-length", b"0") != b"0":
            return False
        user, organization = found.groups()
        self.target = Target(
            "read_quota",
            self._url.partition(b"?")[0].decode(),
            user.decode(),
            None if organization is None else organization.decode(),
        )
        return True

    def text(self, name: bytes) -> str | None:
        """A header as aiohttp would read it."""
        value = self._found.get(name)
        return None if value is None else value.decode("utf-8", "surrogateescape")
