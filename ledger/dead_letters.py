"""What an operator decides of a dead letter: try it again, or let it go.

Both hold the cursor row of the partition, as the drain does, so that records keep one order and
one hash chain. What Redis counted for the entry counts at every load while the letter is open, and
as part of the totals once it is a record. Where it counts no more, the quota is unloaded: after the
commit, because a quota that counts too much until then only refuses a little early.
"""

from __future__ import annotations

import enum
from datetime import datetime
from uuid import UUID

import msgspec

from ledger import store
from ledger.booking import Booking, DrainStopped
from ledger.db import Connection
from ledger.domain.usage import BadEntry, at_ms, count_of, parse_entry
from ledger.recovery import recover
from ledger.rollover import late_after_end
from lua import keys
from lua.scripts import Scripts
from lua.types import Fenced


class Outcome(enum.StrEnum):
    """What became of a dead letter. REPEAT: its usage id was recorded from another entry, so its
    units go back. KNOWN: it was recorded from this very entry. BEFORE: an earlier call settled it
    the same way."""

    RECORDED = "recorded"
    REPEAT = "repeat"
    KNOWN = "known"
    STILL_OPEN = "still_open"
    DISCARDED = "discarded"
    BEFORE = "before"


class NotOpen(Exception):
    """There is no such dead letter, or it has been settled otherwise; the message says which."""


class Settled(msgspec.Struct, frozen=True):
    """One dead letter after it was dealt with."""

    letter: store.DeadLetter
    outcome: Outcome
    reason: str
    revision: int  # of the partition's counts since

    @property
    def moves_units(self) -> bool:
        """Whether the ledger now counts otherwise than a quota loaded before."""
        if self.outcome is Outcome.RECORDED:
            return self.letter.subject is None
        return self.outcome is not Outcome.STILL_OPEN


class DeadLetters:
    """Settles dead letters, one transaction each; `actor` is who decides, `at` when."""

    def __init__(
        self, connection: Connection, scripts: Scripts, *, actor: str, at: datetime
    ) -> None:
        self._connection = connection
        self._scripts = scripts
        self._actor = actor
        self._at = at

    async def retry(self, letter_id: int) -> Settled:
        """Books the entry as the drain would. One that still cannot be written stays open, with
        the new reason. Raises `NotOpen`, `ledger.db.LockNotAvailable` while a drain holds on to
        the partition, or what `recover` does: then the letter is settled, its quota not unloaded,
        and the same call again does that."""
        letter = await self._find(letter_id)
        await self._have_month(letter)
        async with self._connection.transaction():
            row, letter = await self._hold(letter)
            if letter.status == "discarded":
                raise NotOpen(f"dead letter {letter_id} was discarded")
            if letter.status == "retried":
                done = Settled(letter, Outcome.BEFORE, letter.reason, row.revision)
            else:
                done = await self._book(row, letter)
                await self._audit("dead_letter_retried", done)
        await self._unload(done)
        return done

    async def discard(self, letter_id: int, reason: str) -> Settled:
        """Lets the entry go: it counts nowhere from now on. Raises as `retry` does."""
        letter = await self._find(letter_id)
        async with self._connection.transaction():
            row, letter = await self._hold(letter)
            if letter.status == "retried":
                raise NotOpen(f"dead letter {letter_id} was retried: its usage is in the ledger")
            if letter.status == "discarded":
                done = Settled(letter, Outcome.BEFORE, letter.reason, row.revision)
            else:
                await store.close_dead_letter(self._connection, letter_id, "discarded")
                await store.settle(self._connection, row.partition, row.position, row.audit_head)
                done = Settled(letter, Outcome.DISCARDED, reason, row.revision + 1)
                await self._audit("dead_letter_discarded", done)
        await self._unload(done)
        return done

    async def _find(self, letter_id: int) -> store.DeadLetter:
        letter = await store.dead_letter(self._connection, letter_id)
        if letter is None:
            raise NotOpen(f"there is no dead letter {letter_id}")
        return letter

    async def _hold(self, letter: store.DeadLetter) -> tuple[store.Cursor, store.DeadLetter]:
        """The cursor row, and the letter as it is while nobody else can settle it."""
        row = await store.hold_cursor(self._connection, letter.partition)
        return row, await self._find(letter.dead_letter_id)

    async def _have_month(self, letter: store.DeadLetter) -> None:
        # Outside the transaction that books it and holds the cursor row: attaching a month may wait
        # for a VACUUM of the table.
        try:
            recorded_at = parse_entry(letter.stream_id, letter.fields).recorded_at
        except BadEntry:
            return
        await store.ensure_usage_month(self._connection, at_ms(recorded_at).date().replace(day=1))

    async def _book(self, row: store.Cursor, letter: store.DeadLetter) -> Settled:
        booking = Booking(self._connection, row, {})
        entries = [(letter.stream_id, letter.fields)]
        try:
            await booking.book(await booking.read(entries), dict(entries))
        except DrainStopped as error:
            return await self._leave_open(row, letter, str(error))
        if booking.parked:
            return await self._leave_open(row, letter, str(booking.parked[-1]["reason"]))
        for record in booking.records:
            if payer := record.terms.subscription_id:
                await late_after_end(self._connection, UUID(bytes=payer), self._at)
        await store.close_dead_letter(self._connection, letter.dead_letter_id, "retried")
        await store.settle(self._connection, row.partition, booking.position, booking.head)
        if booking.refunds:
            outcome = Outcome.REPEAT
        elif booking.records or "recovery" in letter.fields:
            outcome = Outcome.RECORDED
        else:
            outcome = Outcome.KNOWN
        return Settled(letter, outcome, letter.reason, row.revision + 1)

    async def _leave_open(
        self, row: store.Cursor, letter: store.DeadLetter, reason: str
    ) -> Settled:
        await store.explain_dead_letter(self._connection, letter.dead_letter_id, reason)
        return Settled(letter, Outcome.STILL_OPEN, reason, row.revision)

    async def _audit(self, event_type: str, done: Settled) -> None:
        letter, count = done.letter, count_of(done.letter.fields)
        details = {
            "dead_letter_id": letter.dead_letter_id,
            "partition": letter.partition,
            "stream_id": letter.stream_id,
            "usage_type": letter.usage_type,
            "units": letter.units,
            "outcome": done.outcome,
            "reason": done.reason,
        }
        user_id, organization_id = keys.ids_of(count.who) if count else (None, None)
        await store.insert_audit_event(
            self._connection,
            event_type,
            self._actor,
            details,
            self._at,
            user_id=user_id,
            organization_id=organization_id,
        )

    async def _unload(self, done: Settled) -> None:
        """Has the quotas that counted the entry loaded anew. Once more does no harm, which is
        what makes a call that failed here safe to repeat."""
        count = count_of(done.letter.fields)
        if count is None or not done.moves_units:
            return
        partition = done.letter.partition
        subjects = [keys.subject_text(one) for one in keys.subjects_of(count.who)]
        try:
            await self._scripts.unload(partition, subjects, revision=done.revision)
        except Fenced:
            await recover(self._connection, self._scripts, partition)
            await self._scripts.unload(partition, subjects, revision=done.revision)
