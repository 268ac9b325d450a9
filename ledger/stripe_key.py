"""While Stripe refuses the API key nobody asks it anything, but for one try a minute."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from ledger import store
from ledger.db import Executor

log = structlog.get_logger()

STOPPED = timedelta(minutes=1)  # between looks whether the API key is mended


async def refused(db: Executor, now: datetime) -> None:
    """Only the first refusal is an alarm."""
    if await store.stripe_state.stop(db, now, now + STOPPED):
        log.error("stripe_key_refused", reason="nothing is asked until STRIPE_API_KEY is mended")


async def accepted(db: Executor) -> None:
    if await store.stripe_state.resume(db):
        log.info("stripe_key_accepted")


async def accepted_for_reading(db: Executor) -> None:
    """A key that may read need not be one that may write: what was refused is tried first."""
    if await store.stripe_state.resume_unless_refused(db):
        log.info("stripe_key_accepted")
