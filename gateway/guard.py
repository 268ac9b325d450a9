"""Keeps health information out of the texts that a caller may write."""

from __future__ import annotations

from collections.abc import Set

from gateway.problems import Kind, Problem
from ledger.domain.identifiers import Identifier
from ledger.domain.phi import NONE, identifier

# A company may be named for a person and be told by where it is; that is no patient's.
OF_A_COMPANY: frozenset[Identifier] = frozenset({"name", "address", "web address"})

# A program counts and draws numbers, and one in forty of 16 digits is a card's by its check digit:
# refusing what somebody used would cost more than such a key can tell of a person.
OF_A_PROGRAM: frozenset[Identifier] = frozenset(
    {"account number", "phone number", "vehicle", "device", "IP address", "web address"}
)


def refuse_phi(what: str, text: str, allowed: Set[Identifier] = NONE) -> None:
    """Raises the problem for a text with what looks like a person's; never says what was sent."""
    found = identifier(text, allowed)
    if found is not None:
        raise Problem(
            Kind.PHI_REJECTED,
            f"{what} holds what looks like a person's {found}; leave it out or send an opaque id",
        )
