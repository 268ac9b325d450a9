"""What goes wrong, by name. Messages never contain a token, a user or a quantity."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from gateway.client.results import Limit


class BillingError(Exception):
    """The service refused the call or could not be asked; the subclass says which.

    `status` is the HTTP status of the last answer (None: none came), `slug` the problem's name in
    the API, `key` the idempotency key of a record or correction. `outcome_unknown` is true when an
    attempt may have been recorded: make the same call again with ``key=error.key`` to find out; it
    counts once.
    `retry_after` is how many seconds the service asked to wait, None when it did not say.
    """

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        slug: str = "",
        key: str | None = None,
        outcome_unknown: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.key = key
        self.outcome_unknown = outcome_unknown
        self.retry_after = retry_after


class InvalidUsage(BillingError):
    """A field, quantity, usage type or metadata is not accepted (400, 413, 415)."""


class Unauthorized(BillingError):
    """The token is missing, expired or wrong (401)."""


class Forbidden(BillingError):
    """The token's role or organisations, or a subscription that is paused or unpaid (403)."""


class NotFound(BillingError):
    """There is no such thing, or it is another organisation's (404)."""


class Conflict(BillingError):
    """What is stored contradicts the call, such as a user's organisation (409, 412).

    With `retry_after` only for now: usage that is to be corrected has not reached the ledger."""


class IdempotencyKeyReused(BillingError):
    """The key was used before for another call (422). Nothing was recorded now."""


class LimitReached(BillingError):
    """A limit refused the usage (429): nothing was recorded, and the key may be used again.

    `limit` is the one that bound and `quota_remaining` what it still allows, when the service said
    so. Never retried by itself.
    """

    def __init__(
        self,
        detail: str,
        *,
        limit: Limit | None = None,
        quota_remaining: Decimal | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail, **more)
        self.limit = limit
        self.quota_remaining = quota_remaining


class QuotaExceeded(LimitReached):
    """The quota of the period does not allow this quantity."""


class RateLimited(LimitReached):
    """Too much in a short window; after `retry_after` seconds the same call may succeed."""


class Unavailable(BillingError):
    """No definite answer within the call's deadline, after retries."""
