"""The Python client: records, checks, corrects and reads usage, from async and from ordinary code.

    async with BillingClient("http://localhost:8081", token) as billing:
        recorded = await billing.record(user_id="ada", usage_type="api_calls", quantity=1)

Needs aiohttp and the standard library, nothing of the service. `docs/client.md` shows all of it.

    asynchronous.py   BillingClient: the calls
    synchronous.py    SyncBillingClient: the same calls for code without asyncio
    sending.py        one call through all its attempts: retries, deadline, unknown outcomes
    transport.py      one attempt: token, request, answer
    batching.py       many concurrent records, few requests
    metering.py       the measured duration of a block
    usage.py          what is sent; exact quantities
    results.py        what comes back
    errors.py         what goes wrong
"""

from gateway.client.asynchronous import BillingClient
from gateway.client.batching import Batching
from gateway.client.errors import (
    BillingError,
    Conflict,
    Forbidden,
    IdempotencyKeyReused,
    InvalidUsage,
    LimitReached,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Unauthorized,
    Unavailable,
)
from gateway.client.metering import Meter, SyncMeter
from gateway.client.results import Checked, Corrected, Limit, Quota, Quotas, Recorded, UsageRecord
from gateway.client.sending import Retrying
from gateway.client.synchronous import SyncBillingClient
from gateway.client.transport import Token
from gateway.client.usage import Quantity

__all__ = [
    "Batching",
    "BillingClient",
    "BillingError",
    "Checked",
    "Conflict",
    "Corrected",
    "Forbidden",
    "IdempotencyKeyReused",
    "InvalidUsage",
    "Limit",
    "LimitReached",
    "Meter",
    "NotFound",
    "Quantity",
    "Quota",
    "QuotaExceeded",
    "Quotas",
    "RateLimited",
    "Recorded",
    "Retrying",
    "SyncBillingClient",
    "SyncMeter",
    "Token",
    "Unauthorized",
    "Unavailable",
    "UsageRecord",
]
