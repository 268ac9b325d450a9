"""Amounts of money: exact Decimals, rounded once, half-up to the currency's minor unit.

Arithmetic on amounts runs in `exact()`: Decimal's own context keeps 28 digits and drops the rest
without a word, which the largest quantities times the finest prices would need more of.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation, Overflow
from decimal import localcontext as _localcontext

# ISO 4217, where it is not 2.
_PLACES = {
    **dict.fromkeys(
        ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI",
         "VND", "VUV", "XAF", "XOF", "XPF"), 0
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}  # fmt: skip
# A sum of NUMERIC(24,6) times a price of 18 digits needs 42 digits, their sums a few more.
_DIGITS = 96
_EXACT = Context(prec=_DIGITS, traps=[Inexact, InvalidOperation, Overflow])
_ROUNDING = Context(prec=_DIGITS, rounding=ROUND_HALF_UP, traps=[InvalidOperation, Overflow])


def exact() -> AbstractContextManager[Context]:
    """Within it a Decimal operation that would lose a digit raises `decimal.Inexact`."""
    return _localcontext(_EXACT)


def minor_places(currency: str) -> int:
    """Decimals of the currency's minor unit: 2 of USD (cents), 0 of JPY, 3 of KWD."""
    return _PLACES.get(currency, 2)


def rounded(amount: Decimal, currency: str) -> Decimal:
    """The amount half-up (away from zero at the half) to the minor unit. Nothing else rounds."""
    return amount.quantize(_minor_unit(currency), context=_ROUNDING)


def is_whole(amount: Decimal, currency: str) -> bool:
    """Whether the amount can be paid: has no part of a minor unit."""
    return amount == rounded(amount, currency)


def amount_text(amount: Decimal, currency: str) -> str:
    """The amount with its currency's decimals, as it travels: ``499.00``, ``499`` of JPY.

    Raises `decimal.Inexact` for a part of a minor unit.
    """
    return format(amount.quantize(_minor_unit(currency), context=_EXACT), "f")


def split(amount: Decimal, weights: Sequence[int], currency: str) -> list[Decimal]:
    """Shares of the amount in proportion to weights (>= 0, not all 0), in minor units, that sum
    exactly to it. Raises `decimal.Inexact` for an amount with a part of a minor unit."""
    places = minor_places(currency)
    minor = int(_EXACT.quantize(_EXACT.scaleb(amount, places), Decimal(1)))
    shares = largest_remainder(abs(minor), weights)
    sign = -1 if minor < 0 else 1
    return [_EXACT.scaleb(sign * share, -places) for share in shares]


def largest_remainder(total: int, weights: Sequence[int]) -> list[int]:
    """Whole shares of the total in proportion to weights; what is left after rounding down goes
    one by one to the largest remainders, of equal ones to the first. Of nothing each has nothing,
    also where there is no proportion. Raises ValueError where there is none, or one below 0."""
    whole = sum(weights)
    if total == 0 and not any(weights):
        return [0] * len(weights)
    if whole <= 0 or min(weights) < 0:
        raise ValueError("weights must be 0 or more, and one must be more")
    shares = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: -(total * weights[i] % whole))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _minor_unit(currency: str) -> Decimal:
    return Decimal(1).scaleb(-minor_places(currency))
