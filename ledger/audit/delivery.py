"""Gives what the chains hold to the audit service, in the order of each chain, at least once.

1. claim   a chain of which the service lacks something; committed, so that others leave it alone
2. send    a batch of what comes after the last that it took, outside any transaction
3. note    how far it has the chain; or that it does not answer, and when to try again

There is no queue: the chains are it, and a place in each says how far. Whatever the service does,
nothing else waits for it. A crash between 2 and 3 sends a batch again; `event_id` tells repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import structlog
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar

from ledger import store
from ledger.audit.sealing import BATCH as _SEALED_AT_ONCE
from ledger.db import Connection
from ledger.domain.audit import CONTROL, instant
from ledger.store.audit_deliveries import Claim, UsageEvent

log = structlog.get_logger()

BATCH = _SEALED_AT_ONCE  # events of one request: about 200 KB
TIMEOUT_S = 10
LEASE_S = 3 * TIMEOUT_S  # longer than a request takes: two workers must not send of one chain
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 1, 300
_encode = msgspec.json.Encoder().encode


class Refused(Exception):
    """The audit service does not take a batch now; `after_s`: not before so many seconds."""

    def __init__(self, what: str, after_s: int = 0) -> None:
        super().__init__(what)
        self.after_s = after_s


class Delivery:
    """`first_backoff_s`: before the second try of a batch; doubled each time."""

    def __init__(
        self,
        connection: Connection,
        url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        first_backoff_s: int = FIRST_BACKOFF_S,
    ) -> None:
        self._db = connection
        self._url = url
        self._timeout = ClientTimeout(total=timeout_s)
        self._first_backoff_s = first_backoff_s

    async def run_once(self) -> bool:
        """Sends a batch of one chain; whether there was anything to send."""
        claim = await store.audit_deliveries.claim(self._db, LEASE_S)
        if claim is None:
            return False
        through, events = await self._batch(claim)
        if not events and through > claim.delivered:  # purged: there is nothing to send of them
            await store.audit_deliveries.delivered(self._db, claim.chain, through)
            return True
        if not events:  # the cursor has places that somebody removed: verify tells of them
            await store.audit_deliveries.failed(
                self._db, claim.chain, LONGEST_BACKOFF_S, "events are missing"
            )
            return True
        try:
            await self._send(claim.chain, events)
        except (Refused, ClientError, OSError, TimeoutError) as error:
            await self._again(claim, error)
        else:
            await store.audit_deliveries.delivered(self._db, claim.chain, through)
        return True

    async def _batch(self, claim: Claim) -> tuple[int, list[dict[str, Any]]]:
        """What comes next of the chain, and the place of the last of it."""
        if claim.chain == CONTROL:
            return await self._control(claim.delivered)
        partition = int(claim.chain.removeprefix("usage:"))
        found = await store.audit_deliveries.usage_events(
            self._db, partition, claim.delivered, BATCH
        )
        if not found:
            purged = await store.audit_deliveries.purged_through(
                self._db, partition, claim.delivered, BATCH
            )
            return purged or claim.delivered, []
        return found[-1].position, [_usage(claim.chain, one) for one in found]

    async def _control(self, after: int) -> tuple[int, list[dict[str, Any]]]:
        events, through = [], after
        async with self._db.transaction(isolation="repeatable_read", readonly=True):
            async for event, link in store.audit.sealed(self._db, after, BATCH):
                body = msgspec.structs.asdict(event)
                body |= {"chain": CONTROL, "sequence": link.sequence, "hash": link.hash.hex()}
                body["details"] = msgspec.Raw(event.details.encode())
                body["occurred_at"] = instant(event.occurred_at)
                body["noted_at"] = instant(event.noted_at)
                events.append(body)
                through = link.sequence
                if len(events) == BATCH:
                    break
        return through, events

    async def _send(self, chain: str, events: Sequence[dict[str, Any]]) -> None:
        key = f"{chain}:{events[0]['sequence']}-{events[-1]['sequence']}"
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        async with (
            ClientSession(timeout=self._timeout, cookie_jar=DummyCookieJar()) as http,
            http.post(
                self._url,
                data=_encode({"events": events}),
                headers=headers,
                allow_redirects=False,  # the events are for this service and no other
            ) as response,
        ):
            if not 200 <= response.status < 300:
                raise Refused(f"HTTP {response.status}", _retry_after(response))

    async def _again(self, claim: Claim, error: Exception) -> None:
        # Never the text of a client's error: it may quote the address.
        reason = str(error) if isinstance(error, Refused) else type(error).__name__
        wait = min(self._first_backoff_s * 2 ** min(claim.attempts - 1, 10), LONGEST_BACKOFF_S)
        if isinstance(error, Refused):
            wait = max(wait, min(error.after_s, LONGEST_BACKOFF_S))
        await store.audit_deliveries.failed(self._db, claim.chain, wait, reason)
        log.warning(
            "audit_delivery_waiting", chain=claim.chain, reason=reason, attempts=claim.attempts
        )


def _usage(chain: str, one: UsageEvent) -> dict[str, Any]:
    """In the words of the view `usage_audit_events`."""
    return {
        "event_id": one.usage_id,
        "event_type": "billing_usage_recorded",
        "actor": one.recorded_by,
        "user_id": one.user_id,
        "organization_id": one.organization_id,
        "amount": msgspec.Raw(f"{one.quantity.normalize():f}".encode()),
        "billing_category": one.usage_type,
        "occurred_at": instant(one.recorded_at),
        "chain": chain,
        "sequence": one.position,
    }


def _retry_after(response: ClientResponse) -> int:
    said = response.headers.get("Retry-After", "")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 7 else 0
