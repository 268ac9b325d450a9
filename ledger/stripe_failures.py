"""How a call to Stripe can fail, and what is known then."""

from __future__ import annotations


class StripeFailure(Exception):
    """A call that did not succeed. Its text is a code of Stripe's, never a message: those repeat
    what was sent."""


class Refused(StripeFailure):
    """It will never succeed as it is: for a person. `code` is Stripe's, or the type of error."""

    def __init__(self, status: int, code: str) -> None:
        self.status = status
        self.code = code
        super().__init__(f"{status} {code}")


class KeyRefused(StripeFailure):
    """Nothing will succeed until the API key is mended; the call itself may be right."""


class TryLater(StripeFailure):
    """Nothing has happened by this try. Again with the same key, after `after_s` seconds if Stripe
    said so."""

    def __init__(self, reason: str, after_s: int | None = None) -> None:
        self.after_s = after_s
        super().__init__(reason)


class Unknown(StripeFailure):
    """It may have happened. Again with the same key, unless it is `stored`: Stripe keeps this
    outcome and will answer the key so again; then look it up."""

    def __init__(self, reason: str, *, stored: bool = False) -> None:
        self.stored = stored
        super().__init__(reason)


class Ambiguous(StripeFailure):
    """Stripe has what we cannot have made by one call: two of one id, or a draft whose total is not
    ours. For a person; nothing was sent."""


class TooOld(StripeFailure):
    """Stripe takes no usage of so long ago any more. For a person; nothing was sent."""
