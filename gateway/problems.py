"""Errors as RFC 9457 problem documents. Only this file knows which error has which status."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from ledger.domain import phi

CONTENT_TYPE = "application/problem+json"
_encoder = msgspec.json.Encoder(decimal_format="number")


class Kind(enum.Enum):
    """The catalogue: status and title of every error the API answers."""

    INVALID_USAGE = (400, "Invalid usage")
    INVALID_REQUEST = (400, "Invalid request")
    PHI_REJECTED = (400, "Possible health information")
    UNAUTHORIZED = (401, "Unauthorized")
    FORBIDDEN = (403, "Forbidden")
    NOT_FOUND = (404, "Not found")
    METHOD_NOT_ALLOWED = (405, "Method not allowed")
    TIMEOUT = (408, "Request took too long")
    CONFLICT = (409, "Conflict")
    STALE = (412, "Conflict", "conflict")
    TOO_LARGE = (413, "Request too large")
    UNSUPPORTED_MEDIA = (415, "Unsupported media type")
    IDEMPOTENCY_KEY_REUSE = (422, "Idempotency key reused")
    QUOTA_EXCEEDED = (429, "Quota exceeded")
    RATE_LIMITED = (429, "Rate limited")
    INTERNAL = (500, "Internal error")
    UNAVAILABLE = (503, "Service unavailable")

    @property
    def status(self) -> int:
        return int(self.value[0])

    @property
    def title(self) -> str:
        return str(self.value[1])

    @property
    def slug(self) -> str:
        """How its `type` ends: its name, or that of the kind it is a case of."""
        return str(self.value[2]) if len(self.value) > 2 else self.name.lower().replace("_", "-")


_DENIALS = (Kind.UNAUTHORIZED, Kind.FORBIDDEN)


class Problem(Exception):
    """An error for the caller. `detail` says cause and way out, and never repeats a value that
    was sent: it could be personal or secret. `denied`: whether it refuses access, which is audited;
    what is foreign looks as if it were not there."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        headers: dict[str, str] | None = None,
        *,
        denied: bool | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = headers or {}
        self.members = members
        self.denied = kind in _DENIALS if denied is None else denied

    def document(self, instance: str | None = None) -> dict[str, Any]:
        """The problem document; `instance` is the path it happened at, unless somebody wrote
        into it what identifies a person."""
        told = instance is not None and phi.identifier(instance) is None
        return {
            "type": f"urn:billing:problem:{self.kind.slug}",
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            **({"instance": instance} if told else {}),
            **self.members,
        }

    def body(self, instance: str | None = None) -> bytes:
        return _encoder.encode(self.document(instance))


def unavailable(detail: str, *, outcome_unknown: bool = False, retry_after: int = 1) -> Problem:
    """503: what to wait, and whether the request may have taken effect all the same."""
    return Problem(
        Kind.UNAVAILABLE,
        detail,
        {"Retry-After": str(retry_after)},
        outcome="unknown" if outcome_unknown else "not_recorded",
        retry_after=retry_after,
    )
