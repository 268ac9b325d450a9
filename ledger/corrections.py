"""Corrections of recorded usage: signed units that belong to a record, as a record of their own.

1. intent   in Postgres, one after the other for each record: what is left of it is never below 0,
            however many are under way; with its audit event
2. entry    `lua/correct.lua` counts it where what it corrects is counted, and appends it
3. row      the drain books it like any usage, under the original's terms and periods

A crash after 1 is made good by `run_once`: what is no row after a while is sent again. Redis
repeats no entry while it has the receipt, and the ledger books a usage id once for ever.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog

from ledger import store
from ledger.db import UNAVAILABLE, Connection, Pool
from ledger.domain.ids import correction_id_for_key
from ledger.domain.quantity import MAX_UNITS, number_of
from ledger.domain.usage import Payload, Terms, encode_payload, encode_terms, fingerprint, ms_of
from ledger.recovery import Superseded, recover
from ledger.rollover import late_after_end
from ledger.store.corrections import Correction, Original
from ledger.undrained import NotDrained, Undrained
from lua import keys
from lua.connection import RedisUnavailable
from lua.packing import NONE, pack_said
from lua.scripts import Scripts
from lua.types import Answer, Fenced, Outcome

log = structlog.get_logger()

BATCH = 100
FAILED_S = 60  # until one that cannot be finished is tried again
RESEND_S = 10  # longer than an entry takes to be drained when nothing is wrong


class NoUsage(Exception):
    """There is no such usage record."""


class NotPossible(Exception):
    """The record, or what is left of it, does not allow the correction; the message says why."""


class KeyReused(Exception):
    """The idempotency key was used for another correction of this user."""


class Refused(Exception):
    """Redis took no entry. Nothing is kept, unless others have sent it as well: `is_kept`."""

    def __init__(self, outcome: Outcome, *, is_kept: bool) -> None:
        super().__init__(outcome.name)
        self.outcome, self.is_kept = outcome, is_kept


class Wanted(msgspec.Struct, frozen=True):
    """What is asked for. `units` are signed, `reason` is for the audit trail alone."""

    units: int
    reason: str
    idempotency_key: str
    actor: str


class Corrected(msgspec.Struct, frozen=True):
    """A correction that is in the stream or the ledger, and what Redis said of it."""

    correction: Correction
    answer: Answer


class Corrections:
    def __init__(self, scripts: Scripts, undrained_cap: int) -> None:
        self._scripts = scripts
        self._cap = undrained_cap
        self._undrained = Undrained(scripts)

    async def original(self, pool: Pool, usage_id: UUID) -> Original:
        """The record that is to be corrected. Raises `NoUsage`,
        `ledger.undrained.NotDrained`, or as Redis does."""
        found = await store.corrections.original(pool, usage_id)
        if found is None:
            if await self._undrained.has(pool, usage_id):
                raise NotDrained("it is on its way to the ledger")
            # Drained while its entry was looked for?
            found = await store.corrections.original(pool, usage_id)
        if found is None:
            if await store.corrections.is_parked(pool, usage_id):
                raise NotDrained("it waits for an operator: ./run dead-letters list")
            raise NoUsage
        return found

    async def correct(
        self, db: Connection, original: Original, wanted: Wanted, now: datetime
    ) -> Corrected:
        """Makes a correction, or tells what became of it when it was asked for before. Raises
        `NotPossible`, `KeyReused`, `Refused`, or what Redis and Postgres do: then it may have been
        made, and will be if it was kept."""
        while True:
            async with db.transaction():
                found, is_new = await self._kept(db, original, wanted, now)
            if found.letter is not None and not found.booked:
                raise NotPossible(
                    "an operator discarded this correction"
                    if found.letter == "discarded"
                    else "this correction waits for an operator: ./run dead-letters list"
                )
            if found.booked:
                return Corrected(found, await self._booked(db, found))
            # What its first sender has withdrawn since must not be sent: nothing would keep it.
            if is_new or await store.corrections.claim(db, found.usage_id, RESEND_S):
                break
        answer = await self._send(db, found, original)
        if answer.outcome not in (Outcome.RECORDED, Outcome.REPLAYED):
            withdrawn = await self._withdraw(db, found, original, now)
            raise Refused(answer.outcome, is_kept=not withdrawn)
        return Corrected(found, answer)

    async def run_once(self, db: Connection, now: datetime) -> int:
        """Finishes what is a row by now, and sends again what is not; how many."""
        due = await store.corrections.due(db, BATCH)
        for usage_id in due:
            try:
                await self._finish(db, usage_id, now)
            except (RedisUnavailable, Superseded, Fenced) as error:
                log.warning("correction_waiting", reason=type(error).__name__)
            except UNAVAILABLE:
                raise
            except Exception as error:
                # It must not hold up all others. Never the error's own text: it may quote a row.
                reason = type(error).__name__
                log.error("correction_failed", usage_id=str(usage_id), reason=reason)
                await store.corrections.claim(db, usage_id, FAILED_S)
        return len(due)

    async def _kept(
        self, db: Connection, original: Original, wanted: Wanted, now: datetime
    ) -> tuple[Correction, bool]:
        """The correction as it is kept, and whether it is so since now."""
        usage_id = correction_id_for_key(original.user_id, wanted.idempotency_key)
        print_ = _fingerprint(original, wanted)
        await store.corrections.hold_original(db, original.usage_id)
        found = await store.corrections.find(db, usage_id)
        if found is None:
            # Kept no more where the database was restored: its row may be there all the same.
            known = (await store.known_keys(db, [usage_id.bytes])).get(usage_id.bytes)
            if known is not None and known.fingerprint != print_:
                raise KeyReused
            before = await store.corrections.corrected(db, original.usage_id, usage_id)
            net = original.units + before + wanted.units
            _check(original, original.units + before, net)
            found = Correction(
                usage_id, original.usage_id, wanted.idempotency_key, print_, wanted.units, net,
                wanted.actor, booked=known is not None,
            )  # fmt: skip
            if await store.corrections.insert(db, found, RESEND_S):
                if await store.retention.is_purged(db, original.billing_period):
                    raise NotPossible("records of its billing period have been purged")
                await self._audit(db, "usage_corrected", found, original, now, wanted.reason)
                return found, True
            found = await store.corrections.find(db, usage_id)  # of another record, just now
        if found is None or found.fingerprint != print_:
            raise KeyReused
        return found, False

    async def _finish(self, db: Connection, usage_id: UUID, now: datetime) -> None:
        found = await store.corrections.find(db, usage_id)
        if found is None:
            return
        original = await store.corrections.original(db, found.original_id)
        assert original is not None, "rows are never removed before what corrects them"
        if found.booked or found.letter == "discarded":
            async with db.transaction():
                if found.booked and original.subscription_id is not None:
                    await late_after_end(db, original.subscription_id, now)
                await store.corrections.done(db, usage_id)
        elif await store.corrections.claim(db, usage_id, RESEND_S) and found.letter is None:
            await self._send(db, found, original)

    async def _send(self, db: Connection, one: Correction, original: Original) -> Answer:
        try:
            return await self._scripts.correct(
                original.partition, **_entry(one, original, self._cap)
            )
        except Fenced:
            await recover(db, self._scripts, original.partition)
            return await self._scripts.correct(
                original.partition, **_entry(one, original, self._cap)
            )

    async def _withdraw(
        self, db: Connection, one: Correction, original: Original, now: datetime
    ) -> bool:
        async with db.transaction():
            withdrawn = await store.corrections.withdraw(db, one.usage_id)
            if withdrawn:
                await self._audit(db, "usage_correction_withdrawn", one, original, now, "refused")
        return withdrawn

    async def _booked(self, db: Connection, one: Correction) -> Answer:
        past = (await store.answers(db, [one.usage_id]))[one.usage_id]
        return Answer(Outcome.REPLAYED, ms_of(past.recorded_at), past.remaining, int(past.exceeded))

    async def _audit(
        self, db: Connection, event_type: str, one: Correction, original: Original,
        now: datetime, reason: str,
    ) -> None:  # fmt: skip
        details = {
            "usage_id": str(one.usage_id),
            "correction_of": str(one.original_id),
            "usage_type": original.usage_type,
            "quantity": number_of(one.units, original.decimal_places),
            "net_quantity": number_of(one.net_units, original.decimal_places),
            "reason": reason,
        }
        await store.insert_audit_event(
            db, event_type, one.recorded_by, details, now,
            user_id=original.user_id, organization_id=original.organization_id,
        )  # fmt: skip


def _check(original: Original, left: int, net: int) -> None:
    if original.reversal_of is not None:
        raise NotPossible("it is a correction itself: correct what it corrects")
    if net < 0:
        places = original.decimal_places
        raise NotPossible(f"only {number_of(left, places)} of it is left to take back")
    if net > MAX_UNITS:
        raise NotPossible("the corrected quantity would be too large")


def _fingerprint(original: Original, wanted: Wanted) -> bytes:
    said = {"correction_of": str(original.usage_id), "reason": wanted.reason}
    return fingerprint(_who(original), original.usage_type, wanted.units, None, said)


def _who(original: Original) -> bytes:
    return keys.Account(original.user_id, original.organization_id).who


def _entry(one: Correction, original: Original, cap: int) -> dict[str, Any]:
    """What the script is given: the original's terms and periods, whatever they are by now."""
    who = _who(original)
    payer = original.subscription_id
    pool_period = original.pool_period
    day = original.billing_period.toordinal()
    payload = Payload(
        one.idempotency_key,
        ms_of(original.occurred_at),
        None,
        one.recorded_by,
        original.usage_id.bytes,
    )
    terms = Terms(
        payer.bytes if payer else None,
        original.plan_tier,
        original.plan_version,
        day,
        "month",
        "UTC",
    )
    return {
        "who": who,
        "pool": keys.pool_of(who),
        "cap": cap,
        "said": pack_said(
            one.usage_id.bytes, one.fingerprint, original.usage_type, who, encode_payload(payload)
        ),
        "units": one.units,
        "starts": ms_of(original.quota_period),
        "pool_starts": NONE if pool_period is None else ms_of(pool_period),
        "terms": encode_terms(terms),
        "period": day,
    }
