"""Tokens that are good, odd and forged, each by its name."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from joserfc import jws
from joserfc.jwk import Key

from tests.auth_fake.server import ISSUER, FakeAuth, In, claims, ec, okp, rsa
from tests.security.tokens import REMOVED

EC, RSA, PSS, OKP = ec("ec"), rsa("rsa"), rsa("pss", "PS256"), okp("okp")
STRANGER = ec("ec")  # of the same id as a published one
PUBLISHED: list[Key] = [EC, RSA, PSS, OKP]


class Named(NamedTuple):
    name: str
    make: Callable[[FakeAuth], str]
    good: bool


def part(said: Any) -> str:
    raw = said if isinstance(said, bytes) else json.dumps(said).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def parts(head: Any, said: Any, signature: bytes = b"x" * 64) -> str:
    return f"{part(head)}.{part(said)}.{part(signature)}"


def by_public_text(public: bytes) -> str:
    signing = f"{part({'alg': 'HS256', 'kid': 'rsa'})}.{part(claims())}"
    mac = hmac.new(public, signing.encode(), hashlib.sha256).digest()
    return f"{signing}.{part(mac)}"


def swapped(auth: FakeAuth, at: int, to: str) -> str:
    pieces = auth.signed(EC).split(".")
    pieces[at] = to
    return ".".join(pieces)


def ok(name: str, key: Key = EC, head: dict[str, Any] | None = None, **said: Any) -> Named:
    return Named(name, lambda auth: auth.signed(key, head, **said), True)


def bad(name: str, key: Key = EC, head: dict[str, Any] | None = None, **said: Any) -> Named:
    return Named(name, lambda auth: auth.signed(key, head, **said), False)


def raw(name: str, make: Callable[[FakeAuth], str]) -> Named:
    return Named(name, make, False)


HEAD = {"alg": "ES256", "kid": "ec"}
JWK = EC.as_dict(private=False)

CORPUS = [
    # Good ones.
    ok("ES256"),
    ok("RS256", RSA),
    ok("PS256", PSS),
    ok("EdDSA", OKP),
    ok("an access token by its type", head={"typ": "at+JWT"}),
    ok("the full name of that type", head={"typ": "application/at+jwt"}),
    ok("our audience among others", aud=["other", "billing"]),
    ok("expired a moment ago", exp=In(-5)),
    ok("issued by a clock that is a little ahead", iat=In(20)),
    ok("good from a moment ago", nbf=In(-1)),
    ok("times with fractions", exp=In(600.5)),
    ok("claims that mean nothing here", jti="1", email="x"),
    ok("roles that mean nothing here", roles=["service", "root"]),
    ok("no scope", scope=REMOVED),
    # Signatures.
    raw("signed by a stranger under our key id", lambda auth: auth.signed(STRANGER)),
    raw("a good token with other claims",
        lambda auth: swapped(auth, 1, part(claims(roles=["admin"])))),
    raw("a good token with another header",
        lambda auth: swapped(auth, 0, part(HEAD | {"typ": "JWT", "cty": "x"}))),
    raw("a good token without its signature", lambda auth: swapped(auth, 2, "")),
    raw("a signature of zeros", lambda auth: swapped(auth, 2, part(bytes(64)))),
    raw("a signature cut off", lambda auth: auth.signed(EC)[:-10]),
    raw("a signature in DER",
        lambda auth: swapped(auth, 2, part(bytes.fromhex("3006020101020101")))),
    raw("a key id that is not published", lambda auth: auth.signed(ec("unknown"))),
    raw("no key id", lambda auth: parts({"alg": "ES256"}, claims())),
    raw("a key id that is a number", lambda auth: parts({"alg": "ES256", "kid": 5}, claims())),
    raw("a key id that is a path",
        lambda auth: parts({"alg": "ES256", "kid": "../../dev/null"}, claims())),
    # Algorithms.
    raw("no signature by its own word", lambda auth: parts(HEAD | {"alg": "none"}, claims(), b"")),
    raw("no signature, in capitals", lambda auth: parts(HEAD | {"alg": "NONE"}, claims(), b"")),
    raw("no signature, mixed", lambda auth: parts(HEAD | {"alg": "nOnE"}, claims(), b"")),
    raw("HS256 by the public key in PEM", lambda auth: by_public_text(RSA.as_pem(private=False))),
    raw("HS256 by the public key in DER", lambda auth: by_public_text(RSA.as_der(private=False))),
    raw("HS256 by the public key in JSON",
        lambda auth: by_public_text(json.dumps(RSA.as_dict(private=False)).encode())),
    raw("HS256 by nothing", lambda auth: by_public_text(b"")),
    raw("PS256 by a key for RS256", lambda auth: auth.signed(_for(RSA, "PS256"))),
    raw("RS256 by a key for PS256", lambda auth: auth.signed(_for(PSS, "RS256"))),
    raw("RS512 by a key for RS256", lambda auth: auth.signed(_for(RSA, "RS512"))),
    raw("an elliptic key's id on an RSA signature", lambda auth: auth.signed(RSA, {"kid": "ec"})),
    raw("an RSA key's id on an elliptic signature", lambda auth: auth.signed(EC, {"kid": "rsa"})),
    raw("ES256 said of an EdDSA key", lambda auth: auth.signed(EC, {"kid": "okp"})),
    raw("no algorithm", lambda auth: parts({"kid": "ec"}, claims())),
    raw("an algorithm that is a list", lambda auth: parts(HEAD | {"alg": ["ES256"]}, claims())),
    raw("encrypted", lambda auth: parts(HEAD | {"alg": "dir", "enc": "A256GCM"}, claims())),
    # Headers that say where the key is, or what must be understood. All are signed well.
    bad("jku", head={"jku": "https://evil.example/keys"}),
    bad("jwk", head={"jwk": JWK}),
    bad("x5u", head={"x5u": "https://evil.example/cert"}),
    bad("x5c", head={"x5c": ["MIIB"]}),
    bad("crit", head={"crit": ["cty"], "cty": "x"}),
    bad("crit of what is known", head={"crit": ["kid"]}),
    bad("b64", head={"b64": True}),
    bad("a logout token", head={"typ": "logout+jwt"}),
    bad("a proof of possession", head={"typ": "dpop+jwt"}),
    # Claims. All are signed well.
    bad("expired", exp=In(-3600)),
    bad("expired a little too long ago", exp=In(-45)),
    bad("no expiry", exp=REMOVED),
    bad("an expiry that is a text", exp="1893456000"),
    bad("an expiry that is no number", exp=float("nan")),
    bad("an expiry without end", exp=float("inf")),
    bad("an expiry that is true", exp=True),
    bad("not good yet", nbf=In(3600)),
    bad("a not-before that is a text", nbf="now"),
    bad("issued in the future", iat=In(3600)),
    bad("not issued", iat=REMOVED),
    bad("another issuer", iss="https://evil.example"),
    bad("an issuer that begins like ours", iss=f"{ISSUER}.evil.example"),
    bad("our issuer with a slash", iss=f"{ISSUER}/"),
    bad("the issuer of dev tokens", iss="billing-dev"),
    bad("no issuer", iss=REMOVED),
    bad("another audience", aud="billing-admin"),
    bad("no audience", aud=REMOVED),
    bad("audiences without ours", aud=["a", "b"]),
    bad("no subject", sub=REMOVED),
    bad("an empty subject", sub=""),
    bad("a subject that is a number", sub=5),
    bad("a subject with a line break", sub="a\nb"),
    bad("a subject that is too long", sub="s" * 256),
    bad("roles that are a text", roles="admin"),
    bad("a scope that is a list", scope=["usage:write"]),
    bad("an organisation that is no UUID", org="clinic"),
    bad("an organisation that is a number", org=5),
    bad("bound to a key of its owner", cnf={"jkt": "x"}),
    # Forms.
    raw("claims that are a list", lambda auth: _signed_text(auth, b"[]")),
    raw("claims that are no JSON", lambda auth: _signed_text(auth, b"{")),
    raw("a header that is no JSON", lambda auth: parts(b"{", claims())),
    raw("a header that is nested", lambda auth: parts(b"[" * 300, claims())),
    raw("two parts", lambda auth: auth.signed(EC).rpartition(".")[0]),
    raw("four parts", lambda auth: f"{auth.signed(EC)}.x"),
    raw("five parts", lambda auth: "a.b.c.d.e"),
    raw("opaque, where none is asked about", lambda auth: "2YotnFZFEjr1zCsicMWpAA"),
]  # fmt: skip


def _for(key: Key, algorithm: str) -> Key:
    """The same key, said to be for something else."""
    return type(key).import_key(key.as_dict(private=True) | {"alg": algorithm})


def _signed_text(auth: FakeAuth, text: bytes) -> str:
    return jws.serialize_compact(HEAD, text, EC)
