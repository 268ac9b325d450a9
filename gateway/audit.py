"""The audit trail over HTTP: its events, and whether its chains are whole."""

from __future__ import annotations

import asyncio

import msgspec

from gateway.accounts import Accounts
from gateway.audit_messages import (
    AuditEventAnswer,
    AuditEventList,
    AuditEventQuery,
    ChainAnswer,
    FindingAnswer,
    VerifyAnswer,
    VerifyQuery,
)
from gateway.auth import Action, Principal
from gateway.messages import encoder, utc
from gateway.problems import Kind, Problem, unavailable
from ledger import db, store
from ledger.audit import verify
from ledger.domain.audit import CONTROL, instant
from ledger.store.audit import Filter, Stored


class Audit:
    """The audit routes, free of HTTP."""

    def __init__(self, accounts: Accounts, pool: db.Pool) -> None:
        self._accounts = accounts
        self._pool = pool
        self._one_at_a_time = asyncio.Lock()

    async def page(self, principal: Principal, query: AuditEventQuery) -> bytes:
        """`GET /audit/events`: newest first by when they happened."""
        principal.reach(Action.AUDIT)
        user, organization = query.user_id, query.organization_id
        which = Filter(
            query.event_type,
            query.actor,
            None if user is None else self._accounts.identify(user, "user_id"),
            None
            if organization is None
            else self._accounts.identify(organization, "organization_id"),
            utc(query.from_, "from"),
            utc(query.to, "to"),
        )
        try:
            before = None
            if query.starting_after is not None:
                at = await store.audit.position(self._pool, query.starting_after)
                if at is None:
                    raise Problem(Kind.INVALID_REQUEST, "starting_after is no event of this list")
                before = (at, query.starting_after)
            found = await store.audit.page(self._pool, which, before, query.limit + 1)
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        data = [_answer(one) for one in found[: query.limit]]
        return encoder.encode(AuditEventList(data=data, has_more=len(found) > query.limit))

    async def verify(self, principal: Principal, query: VerifyQuery) -> bytes:
        """`GET /audit/verify`: the newest part of each chain, recomputed. All of them is work for
        `./run audit verify`: it may take as long as reading every row."""
        principal.reach(Action.AUDIT)
        try:
            async with self._one_at_a_time, self._pool.acquire() as connection:
                report = await verify.newest(connection, query.limit, query.chain)
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        if not report.chains:
            raise Problem(Kind.NOT_FOUND, "there is no such chain")
        chains = [
            ChainAnswer(whole=one.checked_from == 1, **msgspec.structs.asdict(one))
            for one in report.chains
        ]
        findings = [FindingAnswer(**msgspec.structs.asdict(one)) for one in report.findings]
        return encoder.encode(VerifyAnswer(intact=not findings, chains=chains, findings=findings))


def _answer(one: Stored) -> AuditEventAnswer:
    event, link = one.event, one.link
    return AuditEventAnswer(
        event_id=event.event_id,
        event_type=event.event_type,
        actor=event.actor,
        user_id=event.user_id,
        organization_id=event.organization_id,
        occurred_at=instant(event.occurred_at),
        noted_at=instant(event.noted_at),
        details=msgspec.Raw(event.details.encode()),
        chain=CONTROL,
        sequence=link.sequence if link else None,
        version=link.version if link else None,
        previous=link.previous.hex() if link else None,
        hash=link.hash.hex() if link else None,
    )
