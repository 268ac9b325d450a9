"""Recording usage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import msgspec
from msgspec import UnsetType

from gateway import limits, metrics
from gateway.accounts import Accounts
from gateway.admission import Admission
from gateway.auth import Action, Denied, Principal
from gateway.guard import OF_A_PROGRAM, refuse_phi
from gateway.known import Unknown, knowing
from gateway.lane import Done
from gateway.messages import (
    BATCH_RECORDS,
    BatchAnswer,
    UsageRequest,
    batch_decoder,
    decode,
    encoder,
    usage_decoder,
)
from gateway.metadata import MetadataGuard
from gateway.problems import Kind, Problem
from gateway.usage_types import UsageTypes
from ledger import clock
from ledger.domain.ids import usage_id_for_key, usage_id_without_key
from ledger.domain.quantity import QuantityError, number_of, units_of
from ledger.domain.usage import Payload, at_ms, encode_payload, fingerprint, ms_of
from lua.keys import uuid_text
from lua.types import Answer, Event, Outcome

KEY_LENGTH = 255
Decide = Callable[[], tuple[Event, int]]
"""The event that a request means, with the decimal places of its usage type."""


class Usage:
    """The usage routes, free of HTTP: bodies in, answers or problems out."""

    def __init__(
        self,
        admission: Admission,
        accounts: Accounts,
        usage_types: UsageTypes,
        metadata: MetadataGuard,
        denied: Denied,
    ) -> None:
        self._admission = admission
        self._accounts = accounts
        self._usage_types = usage_types
        self._metadata = metadata
        self._denied = denied

    async def record(
        self, principal: Principal, body: bytes, header_key: str | None
    ) -> tuple[bytes, dict[str, str]]:
        """`POST /usage`: the answer's body and headers. Raises `Problem`."""
        event, places = await knowing(lambda: self.event(principal, body, header_key))
        [answer] = await self._admission.record([event])
        return self.answer(event, places, answer)

    def event(self, principal: Principal, body: bytes, header_key: str | None) -> tuple[Event, int]:
        """The event a request means, and its usage type's decimal places. Raises `Problem`, or
        `Unknown`."""
        principal.reach(Action.RECORD_USAGE)
        request = decode(usage_decoder, body, Kind.INVALID_USAGE)
        return self._event(principal, request, idempotency_key(header_key))

    def submit(self, event: Event, done: Done) -> None:
        """Sends the event; `gateway.admission.settled` tells what to make of the outcome."""
        self._admission.submit(event, done)

    def answer(
        self, event: Event, places: int, answer: Answer | Problem
    ) -> tuple[bytes, dict[str, str]]:
        """What to send for an outcome: body and headers. Raises `Problem`."""
        if isinstance(answer, Problem):
            raise answer
        self._accept(event, places, answer)
        body = _body(event.usage_id, answer, places)
        if answer.outcome is Outcome.REPLAYED:
            return body, {"Idempotent-Replayed": "true"}
        return body, limits.headers(answer, places, answer.recorded_at)

    async def batch(self, principal: Principal, body: bytes, header_key: str | None) -> bytes:
        """`POST /usage/batch`: each record is decided on its own; results in order."""
        principal.reach(Action.RECORD_USAGE)
        request = decode(batch_decoder, body, Kind.INVALID_USAGE)
        if not 1 <= len(request.records) <= BATCH_RECORDS:
            raise Problem(Kind.INVALID_USAGE, f"a batch has 1 to {BATCH_RECORDS} records")
        key = idempotency_key(header_key)
        results: list[msgspec.Raw | dict[str, Any]] = [{}] * len(request.records)
        events: list[tuple[int, Event, int]] = []
        unknown: list[tuple[int, Decide]] = []
        for index, raw in enumerate(request.records):
            try:
                record = decode(usage_decoder, bytes(raw), Kind.INVALID_USAGE)
                given = isinstance(record.idempotency_key, str)
                own_key = f"{key}#{index}" if key and not given else None
                try:
                    events.append((index, *self._event(principal, record, own_key)))
                except Unknown:
                    unknown.append((index, partial(self._event, principal, record, own_key)))
            except Problem as problem:
                results[index] = self._refused(principal, problem)
        learnt = await _learnt([decide for _, decide in unknown])
        for (index, _), decided in zip(unknown, learnt, strict=True):
            if isinstance(decided, Problem):
                results[index] = self._refused(principal, decided)
            else:
                events.append((index, *decided))
        answers = await self._admission.record([event for _, event, _ in events])
        for (index, event, places), answer in zip(events, answers, strict=True):
            results[index] = self._result(event, places, answer)
        accepted = sum(type(result) is msgspec.Raw for result in results)
        return encoder.encode(
            BatchAnswer(results=results, accepted=accepted, rejected=len(results) - accepted)
        )

    def _refused(self, principal: Principal, problem: Problem) -> dict[str, Any]:
        """The result of a record that was refused; also when others of its batch are taken."""
        if problem.denied:
            self._denied(principal, "record_usage_batch", problem.kind.status)
        return problem.document()

    def _event(
        self, principal: Principal, request: UsageRequest, header_key: str | None
    ) -> tuple[Event, int]:
        """The event a request means, and its usage type's decimal places."""
        user_id = self._accounts.identify(request.user_id, "user_id", Kind.INVALID_USAGE)
        organization = self._accounts.optional(request.organization_id, Kind.INVALID_USAGE)
        places = self._usage_types.places(request.usage_type)
        try:
            units = units_of(bytes(request.quantity), places)
        except QuantityError as error:
            raise Problem(Kind.INVALID_USAGE, str(error)) from None
        key = one_key(header_key, request.idempotency_key)
        account = self._accounts.to_record(principal, user_id, organization)
        said = request.metadata or None
        if said:
            self._metadata.check(said, account.organization_id)
        who, occurred = account.who, request.occurred_at or None
        occurred_ms = None if occurred is None else ms_of(occurred)
        payload = Payload(key, occurred_ms, said, principal.subject)
        if key is None:
            usage_id, print_ = usage_id_without_key(clock.now_ms()), b""
        else:
            usage_id = usage_id_for_key(user_id, key)
            print_ = fingerprint(who, request.usage_type, units, occurred_ms, said)
        event = Event(
            self._admission.partition(who),
            who,
            usage_id,
            print_,
            request.usage_type,
            units,
            occurred_ms,
            encode_payload(payload),
        )
        return event, places

    def _result(
        self, event: Event, places: int, answer: Answer | Problem
    ) -> msgspec.Raw | dict[str, Any]:
        """One result of a batch, or the problem in its place."""
        if isinstance(answer, Problem):
            return answer.document()
        try:
            self._accept(event, places, answer)
        except Problem as problem:
            return problem.document()
        return _result(event.usage_id, answer, places, answer.outcome is Outcome.REPLAYED)

    def _accept(self, event: Event, places: int, answer: Answer) -> None:
        """Counts the outcome; raises the problem that a refusing one stands for."""
        if answer.outcome is Outcome.RECORDED:
            metrics.recorded(event.usage_type, event.units, places)
        elif answer.outcome is not Outcome.REPLAYED:
            metrics.refused(event.usage_type, answer.outcome)
            raise limits.problem(event.usage_type, places, answer)


async def _learnt(decisions: list[Decide]) -> list[tuple[Event, int] | Problem]:
    """What comes of each once the ledger was asked; of all at once, because one after the other a
    ledger that does not answer would be waited for each time."""

    async def learn(decide: Decide) -> tuple[Event, int] | Problem:
        try:
            return await knowing(decide)
        except Problem as problem:
            return problem

    return await asyncio.gather(*map(learn, decisions))


def _body(usage_id: bytes, answer: Answer, places: int) -> bytes:
    """The JSON of a `UsageAnswer`, as its encoder would write it (a test compares them): making
    UUID, datetime and Decimal objects only to print them costs four times as much."""
    remaining = answer.remaining
    second, ms = divmod(answer.recorded_at, 1000)
    fraction = f".{ms:03d}000Z" if ms else "Z"
    return (
        f'{{"usage_id":"{uuid_text(usage_id)}","recorded_at":"{_second(second)}{fraction}",'
        f'"quota_remaining":{"null" if remaining is None else number_of(remaining, places)},'
        f'"quota_exceeded":{"true" if answer.exceeded else "false"}}}'
    ).encode()


def _result(usage_id: bytes, answer: Answer, places: int, replayed: bool) -> msgspec.Raw:
    """The JSON of a `BatchResult`, likewise."""
    end = b',"replayed":true}' if replayed else b"}"
    return msgspec.Raw(b'{"status":201,' + _body(usage_id, answer, places)[1:-1] + end)


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    return at_ms(second * 1000).strftime("%Y-%m-%dT%H:%M:%S")


def idempotency_key(header: str | None) -> str | None:
    """The key of an `Idempotency-Key` header, quoted (as the draft standard says) or bare."""
    if header is None:
        return None
    if len(header) >= 2 and header[0] == header[-1] == '"':
        header = header[1:-1]
    return _valid_key(header)


def one_key(header: str | None, body: str | UnsetType | None) -> str | None:
    """The key of header or body; raises the problem where they differ."""
    if isinstance(body, str):
        _valid_key(body)
        if header is not None and header != body:
            raise Problem(Kind.INVALID_USAGE, "Idempotency-Key header and body differ")
        return body
    return header


def _valid_key(key: str) -> str:
    if not (1 <= len(key) <= KEY_LENGTH and key.isprintable()):
        raise Problem(
            Kind.INVALID_USAGE, f"an idempotency key has 1 to {KEY_LENGTH} printable characters"
        )
    refuse_phi("the idempotency key", key, OF_A_PROGRAM)
    return key
