"""The head of a request on the raw protocol: is it one that is served there?"""

from __future__ import annotations

from gateway.routes import BASE

URL = f"{BASE}/usage".encode()
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


class Head:
    """What the parser reports of a request's head, and whether it is one we serve here."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.usual = True
        self.length = 0
        self._found: dict[bytes, bytes] = {}
        self.complete = False

    def on_url(self, url: bytes) -> None:
        if url != URL:
            self.usual = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _WANTED:
            if name in self._found:
                self.usual = False  # given twice: which is meant is for the strict way to say
            self._found[name] = value
        elif name in _UNUSUAL and not (name == b"connection" and value.lower() == b"keep-alive"):
            self.usual = False

    def on_headers_complete(self) -> None:
        self.complete = True
        length = self._found.get(b"content-length", b"")
        if not length.isdigit() or not 0 < int(length) <= MAX_BODY:
            self.usual = False
            return
        self.length = int(length)
        if self._found.get(b"content-type", b"").lower() not in _JSON:
            self.usual = False

    def text(self, name: bytes) -> str | None:
        """A header as aiohttp would read it."""
        value = self._found.get(name)
        return None if value is None else value.decode("utf-8", "surrogateescape")
