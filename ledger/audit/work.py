"""What a ledger does for the evidence, as `ledger.loops` runs it: seal, sign heads, deliver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from ledger import clock, store
from ledger.audit import heads
from ledger.audit.delivery import Delivery
from ledger.audit.sealing import Sealer
from ledger.db import Connection
from ledger.settings import Settings

log = structlog.get_logger()

SEAL_S = 1.0  # how long an audit event is without its place in the chain
HEADS_S = 600.0  # between signed heads in the log: no chain can be cut off further back unseen
DELIVER_S = 2.0  # between looks for what the audit service lacks

Once = Callable[[], Awaitable[float]]


async def seal(settings: Settings, connection: Connection, _: object) -> Once:
    sealer, key = Sealer(connection), heads.signing_key(settings)
    if key is None:
        log.warning("audit_heads_off", reason="AUDIT_SIGNING_KEY is not set; no head is signed")
    signed_at = clock.monotonic() - HEADS_S

    async def once() -> float:
        nonlocal signed_at
        sealed = await sealer.run_once()
        if key is not None and clock.monotonic() - signed_at >= HEADS_S:
            signed_at = clock.monotonic()
            said = await heads.now(connection, clock.now())
            log.info("audit_heads", head=heads.sign(said, key))
        return 0 if sealed else SEAL_S

    return once


async def deliver(settings: Settings, connection: Connection, _: object) -> Once:
    assert settings.audit_service_url is not None
    await store.audit_deliveries.begin(connection)
    delivery = Delivery(connection, settings.audit_service_url)

    async def once() -> float:
        return 0 if await delivery.run_once() else DELIVER_S

    return once
