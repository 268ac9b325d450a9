"""The metadata guard: an allow-list of keys with typed values, so that free text, and with it
health information, has no place to enter; what is text all the same is looked at besides. Source:
45 CFR 164.514(b)(2) names what must stay out."""

from __future__ import annotations

from collections.abc import Mapping, Set
from functools import lru_cache
from uuid import UUID

from gateway.agreements import Agreements
from gateway.guard import refuse_phi
from gateway.problems import Kind, Problem
from ledger.domain.identifiers import Identifier
from ledger.domain.metadata_keys import BUILT_IN, Key

MAX_KEYS = 8
MAX_BYTES = 1024  # of all keys and values
NOTE = "note"  # the one free text, for organisations with an agreement
NOTE_LENGTH = 200


class MetadataGuard:
    """Decides what metadata may say; `added` are the operator's own keys."""

    def __init__(self, added: Mapping[str, Key], agreements: Agreements) -> None:
        self._keys = {**BUILT_IN, **added}
        self._agreements = agreements

    def check(self, metadata: Mapping[str, str], organization_id: UUID | None) -> None:
        """Raises the problem for metadata that is not allowed, never saying what was sent; or
        `Unknown`, when it must be learnt whether the organisation has an agreement."""
        if len(metadata) > MAX_KEYS:
            raise Problem(Kind.PHI_REJECTED, f"metadata has more than {MAX_KEYS} keys")
        for name, value in metadata.items():
            key = self._keys.get(name)
            if key is None:
                self._check_note(name, value, metadata, organization_id)
                continue
            match = key.pattern.fullmatch(value)
            if match is None:
                raise Problem(Kind.PHI_REJECTED, f"metadata {name} must be {key.meaning}")
            if match.lastindex:
                _check_token(name, value, key.expected)

    def _check_note(
        self, name: str, note: str, metadata: Mapping[str, str], organization_id: UUID | None
    ) -> None:
        if name != NOTE:
            raise Problem(
                Kind.PHI_REJECTED, f"metadata may only have the keys {', '.join(self._keys)}"
            )
        if organization_id is None or not self._agreements.signed(organization_id):
            raise Problem(
                Kind.PHI_REJECTED,
                "metadata note is for organizations with a signed business associate agreement",
            )
        if not (1 <= len(note) <= NOTE_LENGTH and note.isprintable()):
            raise Problem(
                Kind.PHI_REJECTED, f"metadata note has 1 to {NOTE_LENGTH} printable characters"
            )
        # Other values are so short that eight of them never come to this.
        if sum(len(one.encode()) for pair in metadata.items() for one in pair) > MAX_BYTES:
            raise Problem(Kind.PHI_REJECTED, f"metadata has more than {MAX_BYTES} bytes")
        refuse_phi("metadata note", note)


# Models, features and departments come again and again. What is refused is not remembered.
@lru_cache(maxsize=4096)
def _check_token(name: str, value: str, expected: Set[Identifier]) -> None:
    refuse_phi(f"metadata {name}", value, expected)
