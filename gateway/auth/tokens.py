"""Verifies signed tokens (JWT): who signed, with which key, and are the claims right."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from joserfc import jws
from joserfc.errors import SecurityWarning

from gateway.auth.claims import MALFORMED, Claims, Refused, Rules
from gateway.auth.keys import SigningKey

# Of a token that says where its key is to be had, or changes what is signed and how.
_FOREIGN = {"jku", "jwk", "x5u", "x5c", "crit", "b64", "enc", "zip"}
_TYPES = {"jwt", "at+jwt", "application/at+jwt"}  # others, such as logout tokens, let nobody in

# EdDSA has a new name since RFC 9864; auth services go on to use the old one.
warnings.filterwarnings("ignore", "EdDSA is deprecated", SecurityWarning)


class Issuer(NamedTuple):
    """Who signs tokens, and its keys by their ids. `is_dev`: with the key of this data folder."""

    name: str
    find: Callable[[str], SigningKey | None]
    is_dev: bool = False


class Verified(NamedTuple):
    """What a good token says."""

    claims: Claims
    issuer: Issuer


class Tokens:
    """Tokens of some issuers, for one audience."""

    def __init__(self, issuers: Sequence[Issuer], audience: str) -> None:
        self._issuers = [(one, Rules(one.name, audience, signed=True)) for one in issuers]

    def verify(self, token: str) -> Verified | None:
        """None when it is not one that could be verified here. Raises `Refused`, or `Unknown` when
        its key is not known yet."""
        signed = _read(token)
        if signed is None:
            return None
        headers = signed.headers()
        for issuer, rules in self._issuers:
            key = issuer.find(headers["kid"])
            if key is not None:
                _check_headers(headers)
                claims = _claims(signed, key)
                rules.check(claims)
                return Verified(claims, issuer)
        if any(not issuer.is_dev for issuer, _ in self._issuers):
            raise Refused
        return None


def _read(token: str) -> jws.CompactSignature | None:
    """None when it is no signed token."""
    if token.count(".") != 2:
        return None
    try:
        signed = jws.extract_compact(token.encode())
        headers = signed.headers()
        return signed if isinstance(headers["kid"], str) and headers["alg"] else None
    except (*MALFORMED, AttributeError):
        return None


def _check_headers(headers: dict[str, Any]) -> None:
    kind = headers.get("typ", "JWT")
    if _FOREIGN & headers.keys() or not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise Refused


def _claims(signed: jws.CompactSignature, key: SigningKey) -> Claims:
    try:
        if not jws.validate_compact(signed, key.key, [key.algorithm]):
            raise Refused
        claims = json.loads(signed.payload)
    except MALFORMED:
        raise Refused from None
    if not isinstance(claims, dict):
        raise Refused
    return claims
