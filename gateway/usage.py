"""Recording usage and listing what was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from gateway import limits, metadata, metrics
from gateway.accounts import Accounts
from gateway.admission import Admission
from gateway.auth import Action, Principal, Reach
from gateway.messages import (
    BATCH_RECORDS,
    BatchAnswer,
    BatchResult,
    UsageAnswer,
    UsageList,
    UsageQuery,
    UsageRecordAnswer,
    UsageRequest,
    batch_decoder,
    decode,
    encoder,
    usage_decoder,
)
from gateway.problems import Kind, Problem, unavailable
from gateway.usage_types import UsageTypes
from ledger import clock, db, store
from ledger.domain.ids import usage_id_for_key, usage_id_without_key
from ledger.domain.quantity import QuantityError, quantity_of, units_of
from ledger.domain.usage import Payload, at_ms, encode_payload, fingerprint, ms_of
from lua.scripts import Answer, Event, Outcome

KEY_LENGTH = 255


class Usage:
    """The usage routes, free of HTTP: bodies in, answers or problems out."""

    def __init__(
        self, admission: Admission, accounts: Accounts, usage_types: UsageTypes, pool: db.Pool
    ) -> None:
        self._admission = admission
        self._accounts = accounts
        self._usage_types = usage_types
        self._pool = pool

    async def record(
        self, principal: Principal, body: bytes, header_key: str | None
    ) -> tuple[bytes, dict[str, str]]:
        """`POST /usage`: the answer's body and headers. Raises `Problem`."""
        principal.reach(Action.RECORD_USAGE)
        request = decode(usage_decoder, body, Kind.INVALID_USAGE)
        event, places = await self._event(principal, request, idempotency_key(header_key))
        [answer] = await self._admission.record([event])
        if isinstance(answer, Problem):
            raise answer
        said = self._answer(event, places, answer)
        headers = {"Idempotent-Replayed": "true"} if answer.outcome is Outcome.REPLAYED else {}
        if answer.outcome is Outcome.RECORDED:
            headers = limits.headers(answer, places, answer.recorded_at)
        return encoder.encode(said), headers

    async def batch(self, principal: Principal, body: bytes, header_key: str | None) -> bytes:
        """`POST /usage/batch`: each record is decided on its own; results in order."""
        principal.reach(Action.RECORD_USAGE)
        request = decode(batch_decoder, body, Kind.INVALID_USAGE)
        if not 1 <= len(request.records) <= BATCH_RECORDS:
            raise Problem(Kind.INVALID_USAGE, f"a batch has 1 to {BATCH_RECORDS} records")
        key = idempotency_key(header_key)
        results: list[BatchResult | dict[str, Any] | None] = [None] * len(request.records)
        events: list[tuple[int, Event, int]] = []
        for index, raw in enumerate(request.records):
            try:
                record = decode(usage_decoder, bytes(raw), Kind.INVALID_USAGE)
                own_key = f"{key}#{index}" if key and not record.idempotency_key else None
                event, places = await self._event(principal, record, own_key)
                events.append((index, event, places))
            except Problem as problem:
                results[index] = problem.document()
        answers = await self._admission.record([event for _, event, _ in events])
        for (index, event, places), answer in zip(events, answers, strict=True):
            results[index] = self._result(event, places, answer)
        accepted = sum(isinstance(result, BatchResult) for result in results)
        return encoder.encode(
            BatchAnswer(
                results=[result for result in results if result is not None],
                accepted=accepted,
                rejected=len(results) - accepted,
            )
        )

    async def listed(self, principal: Principal, query: UsageQuery) -> bytes:
        """`GET /usage`: recorded usage, newest first, as far as the caller may see it."""
        reach = principal.reach(Action.READ_USAGE)
        user_id = self._given(query.user_id, "user_id")
        organization_id = self._given(query.organization_id, "organization_id")
        organizations = None if organization_id is None else [organization_id]
        if reach is Reach.OWN:
            if user_id not in (None, principal.user_id) or principal.user_id is None:
                raise Problem(Kind.FORBIDDEN, "only your own usage may be read")
            user_id = principal.user_id
        elif reach is Reach.ORGANIZATIONS:
            if organization_id is not None and not principal.acts_for(organization_id):
                raise Problem(Kind.NOT_FOUND, "there is no such organization")
            organizations = organizations or list(principal.organizations)
        if user_id is None and organizations is None:
            raise Problem(Kind.INVALID_REQUEST, "user_id or organization_id is needed")
        try:
            rows = await self._rows(query, user_id, organizations)
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        data = [_listed(row) for row in rows[: query.limit]]
        return encoder.encode(UsageList(data=data, has_more=len(rows) > query.limit))

    async def _rows(
        self, query: UsageQuery, user_id: UUID | None, organizations: list[UUID] | None
    ) -> list[dict[str, Any]]:
        after: tuple[datetime, UUID] | None = None
        if query.starting_after is not None:
            cursor = self._given(query.starting_after, "starting_after")
            after = await store.usage_position(self._pool, cursor) if cursor else None
            if after is None:
                raise Problem(Kind.INVALID_REQUEST, "starting_after is not a usage_id of this list")
        return await store.list_usage(
            self._pool,
            user_id=user_id,
            organization_ids=organizations,
            usage_type=query.usage_type,
            since=query.from_,
            until=query.to,
            after=after,
            count=query.limit + 1,
        )

    def _given(self, text: str | None, what: str) -> UUID | None:
        return None if text is None else self._accounts.identify(text, what)

    async def _event(
        self, principal: Principal, request: UsageRequest, header_key: str | None
    ) -> tuple[Event, int]:
        """The event a request means, and its usage type's decimal places."""
        user_id = self._accounts.identify(request.user_id, "user_id", Kind.INVALID_USAGE)
        organization = self._accounts.optional(request.organization_id, Kind.INVALID_USAGE)
        places = await self._usage_types.places(request.usage_type)
        try:
            units = units_of(bytes(request.quantity), places)
        except QuantityError as error:
            raise Problem(Kind.INVALID_USAGE, str(error)) from None
        said = request.metadata or None
        if said:
            metadata.check(said)
        key = _one_key(header_key, request.idempotency_key or None)
        account = await self._accounts.to_record(principal, user_id, organization)
        who, occurred = account.who, request.occurred_at or None
        occurred_ms = None if occurred is None else ms_of(occurred)
        payload = Payload(key, occurred_ms, said, principal.subject)
        if key is None:
            usage_id, print_ = usage_id_without_key(clock.now_ms()), b""
        else:
            usage_id = usage_id_for_key(user_id, key)
            print_ = fingerprint(who, request.usage_type, units, occurred_ms, said)
        event = Event(
            who,
            usage_id.bytes,
            print_,
            request.usage_type,
            units,
            occurred_ms,
            encode_payload(payload),
        )
        return event, places

    def _result(
        self, event: Event, places: int, answer: Answer | Problem
    ) -> BatchResult | dict[str, Any]:
        if isinstance(answer, Problem):
            return answer.document()
        try:
            said = self._answer(event, places, answer)
        except Problem as problem:
            return problem.document()
        return BatchResult(
            status=201,
            usage_id=said.usage_id,
            recorded_at=said.recorded_at,
            quota_remaining=said.quota_remaining,
            quota_exceeded=said.quota_exceeded,
            replayed=answer.outcome is Outcome.REPLAYED,
        )

    def _answer(self, event: Event, places: int, answer: Answer) -> UsageAnswer:
        """What to say to an outcome. Raises the problem it stands for."""
        if answer.outcome not in (Outcome.RECORDED, Outcome.REPLAYED):
            metrics.refused(event.usage_type, answer.outcome)
            raise limits.problem(event.usage_type, places, answer)
        if answer.outcome is Outcome.RECORDED:
            metrics.recorded(event.usage_type, event.units, places)
        remaining = answer.remaining
        return UsageAnswer(
            usage_id=UUID(bytes=event.usage_id),
            recorded_at=at_ms(answer.recorded_at),
            quota_remaining=None if remaining is None else quantity_of(remaining, places),
            quota_exceeded=bool(answer.exceeded),
        )


def idempotency_key(header: str | None) -> str | None:
    """The key of an `Idempotency-Key` header, quoted (as the draft standard says) or bare."""
    if header is None:
        return None
    if len(header) >= 2 and header[0] == header[-1] == '"':
        header = header[1:-1]
    return _valid_key(header)


def _one_key(header: str | None, body: str | None) -> str | None:
    if body is not None:
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
    return key


def _listed(row: Mapping[str, Any]) -> UsageRecordAnswer:
    fields = dict(row)
    for name in ("quantity", "used_after", "pool_used_after", "quota_remaining"):
        if fields[name] is not None:
            fields[name] = _plain(fields[name])
    fields["billing_period"] = fields["billing_period"].isoformat()
    if fields["metadata"] is not None:
        fields["metadata"] = msgspec.json.decode(fields["metadata"], type=dict[str, str])
    return UsageRecordAnswer(**fields)


def _plain(number: Decimal) -> Decimal:
    """Without the zeros that NUMERIC(20,6) adds, and never with an exponent."""
    text = f"{number:f}"
    return Decimal(text.rstrip("0").rstrip(".") if "." in text else text)
