"""The keys that tokens are verified by, as the auth service publishes them (RFC 7517)."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import structlog
from joserfc.jwk import JWKRegistry, Key

from gateway.auth.claims import MALFORMED
from gateway.auth.service import AuthService, Silent, silent
from gateway.known import Unknown
from ledger import clock
from ledger.flights import SingleFlight

log = structlog.get_logger()

WHAT = "keys"
REFRESH_S = 30  # a key that is withdrawn is good for as long at most, while the service answers
RETRY_S = 5  # after a failure
MISSED_S = 30  # an unknown key id has the keys read anew at most this often: it may be made up
STALE_S = 3600  # how long keys are believed when the service does not answer any more
MAX_KEYS = 64
RSA_BITS = range(2048, 8193)  # shorter ones are broken, longer ones take long to verify

# Which members make the key, and the one algorithm that it is for when it does not say.
_MEMBERS = {"EC": ("crv", "x", "y"), "RSA": ("n", "e"), "OKP": ("crv", "x")}
_ALGORITHMS = {"EC": ("ES256",), "RSA": ("RS256", "PS256"), "OKP": ("EdDSA",)}
_CURVES = {"EC": "P-256", "OKP": "Ed25519", "RSA": None}


class SigningKey(NamedTuple):
    """A public key and the one algorithm it is for; `text` is what was published of it."""

    key: Key
    algorithm: str
    text: bytes


class PublishedKeys:
    """Read again and again in the background, and when a token names one that is not known."""

    def __init__(self, service: AuthService, url: str, withdrawn: Callable[[], None]) -> None:
        """`withdrawn` is called when a key is not published any more."""
        self._service = service
        self._url = url
        self._withdrawn = withdrawn
        self._keys: dict[str, SigningKey] = {}
        self._body = b""
        self._read_at = float("-inf")  # when the service was last asked and answered
        self._missed_at = float("-inf")
        self._failed = False
        self._flights = SingleFlight()
        self._is_reading = False

    def find(self, kid: str) -> SigningKey | None:
        """None when no such key is published. Raises `Unknown` when the service must be asked
        first, and the problem when it does not answer."""
        now = clock.monotonic()
        fresh = now - self._read_at <= STALE_S
        if fresh and kid in self._keys:
            return self._keys[kid]
        if self._is_reading or not (fresh or self._failed):
            raise Unknown(self.refresh)
        if fresh and now - self._missed_at >= MISSED_S:
            raise Unknown(self._missed)
        if self._failed:  # it may be a good key that we were not told of
            raise silent()
        return None

    async def for_ever(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(RETRY_S if self._failed else REFRESH_S)

    async def refresh(self) -> None:
        """Reads the keys; what was known stays when that fails."""
        self._is_reading = True
        await self._flights.run("keys", self._read)

    async def _missed(self) -> None:
        now = clock.monotonic()
        if self._is_reading or now - self._missed_at >= MISSED_S:  # else: somebody else just did
            self._missed_at = now
            await self.refresh()

    async def _read(self) -> None:
        began = clock.monotonic()
        try:
            status, body = await self._service.ask(WHAT, self._url)
            if status != 200:
                raise self._service.failed(WHAT, f"status {status}")
            if body != self._body:
                self._take(self._parsed(body))
                self._body = body
            self._read_at, self._failed = began, False
        except Silent:
            self._failed = True
        finally:
            self._is_reading = False

    def _parsed(self, body: bytes) -> dict[str, SigningKey]:
        try:
            return parse(body)
        except MALFORMED:
            raise self._service.failed(WHAT, "no set of keys") from None

    def _take(self, keys: dict[str, SigningKey]) -> None:
        before, self._keys = self._keys, keys
        if any(kid not in keys or keys[kid][1:] != key[1:] for kid, key in before.items()):
            self._withdrawn()
        log.info("auth_keys_read", keys=len(keys))


def parse(body: bytes) -> dict[str, SigningKey]:
    """The keys that may be used, by id. Raises one of `MALFORMED` when it is no set of keys."""
    published = msgspec.json.decode(body)["keys"]
    if not isinstance(published, list) or len(published) > MAX_KEYS:
        raise ValueError("no set of keys")
    found: dict[str, SigningKey] = {}
    for kid, key in _usable(published):
        if kid in found:  # which of them signs is not said
            raise ValueError("two keys of one id")
        found[kid] = key
    return found


def _usable(published: list[Any]) -> Iterator[tuple[str, SigningKey]]:
    for one in published:
        try:
            yield one["kid"], _signing_key(one)
        except MALFORMED:
            log.warning("auth_key_not_used")  # of another kind, or wrong: no reason to drop others


def _signing_key(said: dict[str, Any]) -> SigningKey:
    kind = said["kty"]
    allowed = _ALGORITHMS[kind]
    algorithm = said.get("alg", allowed[0])
    if algorithm not in allowed or said.get("use", "sig") != "sig":
        raise ValueError("not for signatures that are verified here")
    if not (isinstance(said["kid"], str) and "verify" in said.get("key_ops", ["verify"])):
        raise ValueError("not a key to verify by")
    if "d" in said:  # whoever can read this can sign with it
        raise ValueError("a private key")
    members = {"kty": kind, **{name: said[name] for name in _MEMBERS[kind]}}
    if members.get("crv") != _CURVES[kind]:
        raise ValueError("another curve")
    if kind == "RSA" and not (_bits(members["n"]) in RSA_BITS and _bits(members["e"]) <= 32):
        raise ValueError("too short, or takes too long")
    return SigningKey(JWKRegistry.import_key(members), algorithm, msgspec.json.encode(members))


def _bits(number: str) -> int:
    return int.from_bytes(urlsafe_b64decode(f"{number}==")).bit_length()
