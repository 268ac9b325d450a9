"""What it means for an invoice of ours how Stripe has it.

What is settled here is never opened again, so it does not matter when Stripe was asked: an answer
that was overtaken by a later one changes nothing any more.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec

InvoiceStatus = Literal["draft", "open", "paid", "void", "uncollectible"]


class Seen(msgspec.Struct, frozen=True):
    """An invoice as Stripe has it, in our amounts."""

    status: str
    total: Decimal
    amount_paid: Decimal


class Verdict(msgspec.Struct, frozen=True):
    """What the invoice is from now on. `contradiction`: why a person must look; then nothing
    changes."""

    status: InvoiceStatus
    amount_paid: Decimal
    contradiction: str | None = None


# Ours and Stripe's to what ours becomes; all others leave it as it is. Voided here and open there:
# Stripe has not been told yet. What was given up may be paid all the same.
_BECOMES: dict[tuple[InvoiceStatus, str], InvoiceStatus] = {
    ("open", "paid"): "paid",
    ("open", "void"): "void",
    ("open", "uncollectible"): "uncollectible",
    ("uncollectible", "paid"): "paid",
}
_CONTRADICTS: dict[tuple[InvoiceStatus, str], str] = {
    ("void", "paid"): "paid at Stripe, and voided here",
    ("paid", "void"): "voided at Stripe, and paid here",
    ("draft", "paid"): "paid at Stripe, and not issued here",
}


def judge(status: InvoiceStatus, total: Decimal, amount_paid: Decimal, seen: Seen) -> Verdict:
    """What becomes of an invoice with this status, total and amount paid so far."""
    contradiction = _CONTRADICTS.get((status, seen.status))
    if contradiction is None and seen.status != "draft" and seen.total != total:
        contradiction = "another total at Stripe"
    if contradiction is not None:
        return Verdict(status, amount_paid, contradiction)
    becomes = _BECOMES.get((status, seen.status), status)
    return Verdict(becomes, max(amount_paid, seen.amount_paid))
