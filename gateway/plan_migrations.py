"""Having subscriptions brought to a version of their plan: asked for here, done by the ledger."""

from __future__ import annotations

from gateway.auth import Action, Principal
from gateway.catalogue_messages import MigrationAnswer, MigrationRequest, migration_decoder
from gateway.messages import decode, encoder
from gateway.problems import Kind, Problem, unavailable
from gateway.subscription_changes import Now
from ledger import db, store
from ledger.domain.ids import parse
from ledger.domain.money import amount_text
from ledger.plan_migrations import ask, newest_version
from ledger.store.plan_migrations import Asked, Progress
from ledger.wishes import NoPlan


class PlanMigrations:
    """The routes of migrations, free of HTTP."""

    def __init__(self, pool: db.Pool, now: Now) -> None:
        self._pool = pool
        self._now = now

    async def ask(
        self, principal: Principal, tier: str, body: bytes
    ) -> tuple[bytes, dict[str, str]]:
        """`POST /plans/{tier}/migrate`; asked twice while it runs, it is one."""
        principal.reach(Action.CHANGE)
        request = decode(migration_decoder, body or b"{}")
        try:
            asked = await self._asked(tier, request)
            found = await ask(self._pool, asked, actor=principal.subject, now=await self._now())
        except NoPlan:
            raise Problem(Kind.INVALID_REQUEST, "there is no such public version") from None
        except db.UNAVAILABLE:
            raise unavailable(
                "the ledger's database does not answer", outcome_unknown=True
            ) from None
        return encoder.encode(_answer(found)), {}

    async def _asked(self, tier: str, request: MigrationRequest) -> Asked:
        try:
            newest = await newest_version(self._pool, tier)
        except NoPlan:
            raise Problem(Kind.NOT_FOUND, "there is no such plan") from None
        before = request.from_version or None
        to = request.to_version or newest
        if before == to:
            raise Problem(Kind.INVALID_REQUEST, "from_version and to_version are the same")
        when = request.when or "period_end"
        return Asked(tier, before, to, when, request.preview is True)

    async def read(self, principal: Principal, tier: str, migration: str) -> bytes:
        """`GET /plans/{tier}/migrations/{migration_id}`."""
        principal.reach(Action.CHANGE)
        try:
            found = await store.plan_migrations.progress(self._pool, tier, parse(migration))
        except ValueError:
            found = None
        except db.UNAVAILABLE:
            raise unavailable("the ledger's database does not answer") from None
        if found is None:
            raise Problem(Kind.NOT_FOUND, "there is no such migration")
        return encoder.encode(_answer(found))


def _answer(found: Progress) -> MigrationAnswer:
    return MigrationAnswer(
        migration_id=found.migration_id,
        plan_tier=found.asked.plan_tier,
        from_version=found.asked.from_version,
        to_version=found.asked.to_version,
        when=found.asked.moment,
        preview=found.asked.preview,
        status="done" if found.done_at else "running",
        changed=found.changed,
        pending=found.pending,
        skipped=found.skipped,
        currency=found.currency,
        total=amount_text(found.total, found.currency),
        actor=found.actor,
        created_at=found.created_at,
        done_at=found.done_at,
    )
