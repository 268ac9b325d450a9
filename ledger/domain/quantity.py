"""Exact quantities: a JSON number on the wire, scaled integer *units* in Redis, Decimal in the
ledger.

A usage type has a number of decimal places; one unit is ``10 ** -decimal_places`` of it.
No float is ever made: Lua numbers are doubles, so units stay within 2^53 - 1 where doubles are
exact integers.
"""

from __future__ import annotations

import re
from decimal import Decimal

MAX_UNITS = 2**53 - 1

# Longer tokens cannot be exact within any scale we allow, and would make `int` slow.
_MAX_TOKEN = 64
_POWERS: tuple[int, ...] = tuple(
    10**places for places in range(7)
)  # a usage type has 0 to 6 decimal places
_NUMBER = re.compile(rb"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]{1,4}))?\Z")


class QuantityError(ValueError):
    """The quantity cannot be recorded; the message says why, without repeating the value."""


def units_of(token: bytes, decimal_places: int) -> int:
    """Scaled units of a raw JSON number token, 1..2^53-1.

    The token, not a parsed number, because ``Decimal('1E+3000000')`` parses at once and then
    takes minutes to become an integer. Raises `QuantityError`.
    """
    if token.isdigit() and len(token) <= 9 and token[0] != 48:  # the common case: 1, 15, 1200
        return int(token) * _POWERS[decimal_places]
    match = _NUMBER.match(token) if len(token) <= _MAX_TOKEN else None
    if match is None:
        if token[:1] in b"-0123456789":
            raise QuantityError("quantity has too many digits")
        raise QuantityError("quantity must be a JSON number")
    sign, whole, fraction, exponent = match.groups()
    digits = (whole + (fraction or b"")).lstrip(b"0")
    if not digits:
        raise QuantityError("quantity must be greater than 0")
    if sign:
        raise QuantityError("quantity must be greater than 0")
    significant = digits.rstrip(b"0")
    power = int(exponent or 0) - len(fraction or b"") + len(digits) - len(significant)
    shift = power + decimal_places
    if shift < 0:
        raise QuantityError(
            "quantity must be a whole number"
            if decimal_places == 0
            else f"quantity has more than {decimal_places} decimal places"
        )
    if len(significant) + shift > len(str(MAX_UNITS)):
        raise QuantityError("quantity is too large")
    units = int(significant + b"0" * shift)
    if units > MAX_UNITS:
        raise QuantityError("quantity is too large")
    return units


def signed_units_of(token: bytes, decimal_places: int) -> int:
    """The same of a number that may be negative, but not 0."""
    number = token[1:] if token[:1] == b"-" else token
    if number[:1] == b"-":
        raise QuantityError("quantity must be a JSON number")
    try:
        units = units_of(number, decimal_places)
    except QuantityError as error:
        raise QuantityError(str(error).replace("greater than 0", "other than 0")) from None
    return -units if number is not token else units


def quantity_of(units: int, decimal_places: int) -> Decimal:
    """The exact Decimal of scaled units, with no trailing zeros and no exponent."""
    return Decimal(number_of(units, decimal_places))


def number_of(units: int, decimal_places: int) -> str:
    """The JSON number text of scaled units: 144050 at 2 places is ``1440.5``."""
    if decimal_places == 0:
        return str(units)
    sign = "-" if units < 0 else ""
    digits = str(abs(units)).rjust(decimal_places + 1, "0")
    fraction = digits[-decimal_places:].rstrip("0")
    return sign + digits[:-decimal_places] + ("." + fraction if fraction else "")


def units_of_decimal(quantity: Decimal, decimal_places: int) -> int:
    """Scaled units of a Decimal the ledger or a plan holds (may be 0 or negative)."""
    scaled = quantity.scaleb(decimal_places)
    units = int(scaled)
    if units != scaled:
        raise QuantityError(f"quantity has more than {decimal_places} decimal places")
    return units
