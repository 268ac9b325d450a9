"""Stripe, behind calls that say what is known when they fail. The only file that imports `stripe`.

Nothing is retried here: who owes the call knows how often it was tried (`stripe_attempt`). Every
try is given a deadline, our idempotency key and one version of the API, and what it sends has
passed `stripe_egress`. `stripe_failures` are what may come of it.

Importing this file costs some 10 MiB: only a process that delivers does.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

import aiohttp
import msgspec
import stripe

from ledger.domain import stripe_egress
from ledger.domain.stripe_invoice import (
    PATHS,
    Call,
    Ids,
    Operation,
    Request,
    Units,
    UnixSeconds,
    mark_of,
    request_of,
    unix_seconds,
)
from ledger.domain.stripe_meter import MINUTE_S, VALUE, Meter
from ledger.stripe_failures import (
    Ambiguous,
    KeyRefused,
    Refused,
    StripeFailure,
    TryLater,
    Unknown,
)
from ledger.stripe_pages import Listed, Page, pages

# The version of the OpenAPI document that tests hold every request against. Another one is a
# change of this line and of the test's package together.
VERSION = "2026-05-27.dahlia"

# The library would make a file with an id of this machine in the home directory, and send that, the
# kernel's version and earlier response times along.
stripe.enable_telemetry = False
# Its lines repeat what Stripe says of a bad request, and that repeats what was sent.
logging.getLogger("stripe").setLevel(logging.CRITICAL)
# All that leaves in the head of a request: the library adds what it finds out about its caller.
_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "Stripe-Version")

T = TypeVar("T")
One = TypeVar("One", bound=Listed)

CONNECT_S = 5.0
# Of a page of invoices, with lines, 3 MB; but a few bytes that were compressed may be gigabytes.
LONGEST_ANSWER = 32 * 1024 * 1024
ANSWER_S = 30.0  # Stripe gives finalising an invoice longer than anything else
# A customer is looked for among those made since the first try; Stripe's clock is not ours.
_CLOCKS = timedelta(hours=1)
_LONGEST_WAIT_S = 3600
# Of a meter event whose identifier Stripe has seen: it is there. Some answers have no code.
_DUPLICATE, _DUPLICATE_WORDS = "duplicate_meter_event", "already exists with identifier"


class StripeObject(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of an object of Stripe's. Amounts in its minor units, times in
    Unix seconds; all but `total` of invoices only."""

    id: str
    status: str | None = None
    total: Units | None = None
    amount_paid: Units | None = None
    due_date: UnixSeconds | None = None
    metadata: dict[str, str] = {}


class _MeterEvent(msgspec.Struct, frozen=True):
    identifier: str


class _Summary(msgspec.Struct, frozen=True):
    id: str
    aggregated_value: int


class _Transport(stripe.HTTPClient):
    """One try over aiohttp, and what is known when it fails."""

    name = "aiohttp"

    def __init__(self, connect_s: float, answer_s: float) -> None:
        super().__init__()
        self._deadlines = aiohttp.ClientTimeout(total=answer_s, connect=connect_s)
        self._session: aiohttp.ClientSession | None = None

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._deadlines)
        sent = {name: headers[name] for name in _HEADERS if name in headers}
        try:
            async with self._session.request(
                method, url, headers=sent, data=post_data, allow_redirects=False
            ) as answer:
                return await _whole(answer), answer.status, answer.headers
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TryLater(type(error).__name__) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unknown(type(error).__name__) from None

    async def close_async(self) -> None:
        if self._session is not None:
            await self._session.close()


class StripeApi:
    """`base` is another server than Stripe's, for tests. Deadlines in seconds."""

    def __init__(
        self,
        key: str,
        base: str | None = None,
        *,
        connect_s: float = CONNECT_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._transport = _Transport(connect_s, answer_s)
        self._client = stripe.StripeClient(
            key,
            base_addresses={} if base is None else {"api": base.rstrip("/")},
            http_client=self._transport,
            max_network_retries=0,
            stripe_version=VERSION,
        )

    async def close(self) -> None:
        await self._transport.close_async()

    async def send(self, call: Call, ids: Ids, *, key_number: int = 0) -> StripeObject:
        """Has Stripe do it; however often it is sent within 24 hours, once.

        Raises every `StripeFailure`, and `NotOpaque` before anything has left."""
        if call.total is not None:
            await self._check_total(ids, call.total)
        request = request_of(call, ids)
        key = call.key(key_number)
        if call.operation == "meter_event":
            return await self._send_event(request, key)
        return await self._ask("post", request.path, request.params, StripeObject, key)

    async def find(self, call: Call, ids: Ids, since: datetime) -> StripeObject | None:
        """What an earlier `send` made, the first of them at `since`; None when there is nothing.

        By lists, which show at once what was made; Stripe's search is a minute late."""
        if call.operation in ("finalize", "void"):
            found = await self.invoice(ids)
            return found if _is_done(call.operation, found) else None
        if call.operation == "meter_event":
            return await self._find_event(call, ids)
        query = _query(call.operation, ids, since)
        ours = str(call.ours)
        listed = self._listed(PATHS[call.operation], query, Page[StripeObject])
        same = [one async for one in listed if mark_of(one.metadata) == ours]
        if len(same) > 1:
            raise Ambiguous(f"two of one {call.operation}")
        return same[0] if same else None

    async def invoice(self, ids: Ids) -> StripeObject:
        """The invoice as it is now."""
        return await self._ask("get", f"/v1/invoices/{ids.invoice}", {}, StripeObject)

    async def read(self, path: str, query: Mapping[str, Any], answer: type[T]) -> T:
        """A page of a list, for who reads much (`ledger.stripe_reading`)."""
        return await self._ask("get", path, query, answer)

    async def meters(self) -> dict[str, Meter]:
        """Those that are active, by the name of their events."""
        listed = self._listed("/v1/billing/meters", {"status": "active"}, Page[Meter])
        return {one.event_name: one async for one in listed}

    async def _send_event(self, request: Request, key: str) -> StripeObject:
        identifier = request.params["identifier"]
        try:
            await self._ask("post", request.path, request.params, _MeterEvent, key)
        except Refused as error:
            # The identifier says what the value is: whoever has seen it has all of it.
            if error.code != _DUPLICATE:
                raise
        return StripeObject(id=identifier)

    async def _find_event(self, call: Call, ids: Ids) -> StripeObject | None:
        """By what Stripe has added up for its minute, which no other event of ours is in."""
        meter = (await self.meters()).get(call.params["event_name"])
        if meter is None:
            raise Refused(404, "no_meter")
        start = call.params["timestamp"]
        query = {"customer": ids.customer, "start_time": start, "end_time": start + MINUTE_S}
        path = f"/v1/billing/meters/{meter.id}/event_summaries"
        listed = self._listed(path, query, Page[_Summary])
        value = sum([one.aggregated_value async for one in listed])
        if value not in (0, int(call.params["payload"][VALUE])):
            raise Ambiguous("another value than the event's in its minute")
        return StripeObject(id=str(call.ours)) if value else None

    async def _check_total(self, ids: Ids, total: int) -> None:
        found = await self.invoice(ids)
        if found.total != total:
            raise Ambiguous("the draft does not come to the invoice's total")

    async def _listed(
        self, path: str, query: dict[str, Any], kind: type[Page[One]]
    ) -> AsyncIterator[One]:
        async for page in pages(self.read, path, query, kind):
            for one in page:
                yield one

    async def _ask(
        self,
        method: Literal["get", "post"],
        path: str,
        params: Mapping[str, Any],
        answer: type[T],
        key: str | None = None,
    ) -> T:
        stripe_egress.check(path, params)
        options = {} if key is None else {"idempotency_key": key}
        try:
            said = await self._client.raw_request_async(method, path, **params, **options)
        except stripe.StripeError as error:
            raise _failure(error) from None
        return _converted(said.data, answer)


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for part in answer.content.iter_any():
        body += part
        if len(body) > LONGEST_ANSWER:
            raise Unknown("an answer that is too long")
    return bytes(body)


def _converted(said: Any, of: type[T]) -> T:
    try:
        return msgspec.convert(said, of)
    except msgspec.ValidationError:
        raise Unknown("unreadable answer") from None


def _query(operation: Operation, ids: Ids, since: datetime) -> dict[str, Any]:
    if operation == "customer":
        return {"created": {"gte": unix_seconds(since - _CLOCKS)}}
    if operation == "invoice":
        return {"customer": ids.customer}
    return {"invoice": ids.invoice}


def _is_done(operation: Operation, invoice: StripeObject) -> bool:
    return invoice.status == "void" if operation == "void" else invoice.status != "draft"


def _failure(error: stripe.StripeError) -> StripeFailure:
    status = error.http_status
    said = error.json_body
    if status is None or not isinstance(said, dict) or status >= 500 or status < 400:
        # From Stripe: its outcome is open. From something between: it may have been passed on.
        stored = error.headers.get("Idempotent-Replayed") == "true" if error.headers else False
        return Unknown(f"status {status}", stored=stored)
    if status in (401, 403):
        return KeyRefused(f"status {status}")
    if status in (409, 429):
        # 409: another try under this key is under way.
        return TryLater(f"status {status}", _retry_after(error.headers))
    return Refused(status, error.code or _code_of(said))


def _code_of(said: Mapping[str, Any]) -> str:
    """Of an error without a code: its type, but for the one that we know by its words."""
    told = said.get("error")
    if not isinstance(told, dict):
        return ""
    return _DUPLICATE if _DUPLICATE_WORDS in str(told.get("message")) else str(told.get("type", ""))


def _retry_after(headers: Mapping[str, str] | None) -> int | None:
    said = (headers or {}).get("Retry-After", "")
    return min(int(said), _LONGEST_WAIT_S) if said.isascii() and said.isdigit() else None
