"""Correcting recorded usage: finance adds to a record, or takes some of it back."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from gateway.auth import Action, Principal
from gateway.guard import refuse_phi
from gateway.messages import Quantity, Request, Response, decode, encoder
from gateway.problems import Kind, Problem, unavailable
from gateway.subscription_changes import Now
from gateway.usage import idempotency_key, one_key
from ledger import db
from ledger.corrections import (
    Corrected,
    Corrections,
    KeyReused,
    NotPossible,
    NoUsage,
    Refused,
    Wanted,
)
from ledger.domain import ids
from ledger.domain.quantity import QuantityError, quantity_of, signed_units_of
from ledger.domain.usage import at_ms
from ledger.recovery import Superseded
from ledger.store.corrections import Original
from ledger.undrained import NotDrained
from lua.connection import RedisUnavailable
from lua.types import Fenced, Outcome

DRAINED_S = 1  # what is not drained normally is within a second


class CorrectionRequest(Request):
    """What to add to a record; negative takes back. Needs an idempotency key, here or as header."""

    quantity: Quantity
    reason: Annotated[
        str,
        msgspec.Meta(
            min_length=1, max_length=200, description="For the audit trail; name no patient"
        ),
    ]
    idempotency_key: str | UnsetType | None = UNSET


class CorrectionAnswer(Response):
    """`net_quantity`: what is left of the record after it. `quota_remaining` is null where nothing
    limits it, or where the quota that the record was charged to is not in use now: its period is
    over, or nobody has used it for a day."""

    usage_id: UUID
    correction_of: UUID
    quantity: Decimal
    net_quantity: Decimal
    recorded_at: datetime
    quota_remaining: Decimal | None
    quota_exceeded: bool


_decoder = msgspec.json.Decoder(CorrectionRequest)


class UsageCorrections:
    """`POST /usage/{usage_id}/corrections`, free of HTTP."""

    def __init__(self, corrections: Corrections, pool: db.Pool, now: Now) -> None:
        self._corrections = corrections
        self._pool = pool
        self._now = now

    async def correct(
        self, principal: Principal, usage: str, body: bytes, header_key: str | None
    ) -> tuple[bytes, dict[str, str]]:
        """The answer's body and headers. Raises `Problem`."""
        principal.reach(Action.CHANGE)
        asked = decode(_decoder, body)
        key = one_key(idempotency_key(header_key), asked.idempotency_key)
        if key is None:
            raise Problem(Kind.INVALID_REQUEST, "an Idempotency-Key is needed")
        if not asked.reason.isprintable():
            raise Problem(Kind.INVALID_REQUEST, "reason has characters that cannot be printed")
        refuse_phi("reason", asked.reason)
        try:
            usage_id = ids.parse(usage)
        except ValueError:
            raise _unknown() from None
        kept = False  # perhaps
        try:
            original = await self._corrections.original(self._pool, usage_id)
            wanted = Wanted(_units(asked, original), asked.reason, key, principal.subject)
            now = await self._now()
            async with self._pool.acquire() as connection:
                kept = True
                done = await self._corrections.correct(connection, original, wanted, now)
        except NoUsage:
            raise _unknown() from None
        except NotDrained as error:
            headers = {"Retry-After": str(DRAINED_S)}
            detail = f"this usage cannot be corrected yet: {error}"
            raise Problem(Kind.CONFLICT, detail, headers, retry_after=DRAINED_S) from None
        except NotPossible as error:
            raise Problem(Kind.CONFLICT, str(error)) from None
        except KeyReused:
            raise Problem(
                Kind.IDEMPOTENCY_KEY_REUSE, "this key was used for another correction"
            ) from None
        except Refused as error:
            if error.is_kept:
                raise _away("Redis takes no entry now", True) from None
            raise _refused(error.outcome) from None
        except (RedisUnavailable, Fenced, Superseded):
            raise _away("Redis does not answer", kept) from None
        except db.UNAVAILABLE:
            raise _away("the ledger's database does not answer", kept) from None
        return _answer(original, done)


def _units(asked: CorrectionRequest, original: Original) -> int:
    try:
        return signed_units_of(bytes(asked.quantity), original.decimal_places)
    except QuantityError as error:
        raise Problem(Kind.INVALID_USAGE, str(error)) from None


def _answer(original: Original, done: Corrected) -> tuple[bytes, dict[str, str]]:
    places, said = original.decimal_places, done.answer
    answer = CorrectionAnswer(
        usage_id=done.correction.usage_id,
        correction_of=original.usage_id,
        quantity=quantity_of(done.correction.units, places),
        net_quantity=quantity_of(done.correction.net_units, places),
        recorded_at=at_ms(said.recorded_at),
        quota_remaining=None if said.remaining is None else quantity_of(said.remaining, places),
        quota_exceeded=said.exceeded == 1,
    )
    replayed = said.outcome is Outcome.REPLAYED
    return encoder.encode(answer), {"Idempotent-Replayed": "true"} if replayed else {}


def _unknown() -> Problem:
    return Problem(Kind.NOT_FOUND, "there is no such usage")


def _refused(outcome: Outcome) -> Problem:
    if outcome is Outcome.FULL:
        return unavailable("too much usage waits for the ledger; nothing was recorded")
    if outcome is Outcome.CONFLICT:
        return Problem(Kind.IDEMPOTENCY_KEY_REUSE, "this key was used for another correction")
    return Problem(Kind.INVALID_USAGE, "the quota cannot count that much")


def _away(what: str, kept: bool) -> Problem:
    if not kept:
        return unavailable(f"{what}; nothing was recorded")
    return unavailable(
        f"{what}; whether it was recorded is unknown: retry with the same Idempotency-Key",
        outcome_unknown=True,
    )
