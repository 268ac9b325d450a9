"""POST /webhooks/stripe: what is taken, what is refused, and that refusing costs nothing."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha1, sha256
from typing import Any

import msgspec
import pytest

from gateway.webhooks import MAX_EVENT
from ledger import clock as real_clock
from ledger.domain.stripe_invoice import unix_seconds
from ledger.domain.stripe_signature import TOLERANCE
from ledger.settings import Secret, Settings
from tests.conftest import BASE, Service, Services
from tests.stripe_fake.clock import Clock
from tests.stripe_fake.webhooks import Delivery, Webhooks

URL = f"{BASE}/webhooks/stripe"
SECRETS = ("whsec_new", "whsec_old")
TEXT = {"Content-Type": "application/json; charset=utf-8"}


@pytest.fixture
def stripe() -> Webhooks:
    return Webhooks(Clock(real_clock.now()), "test", SECRETS[:1])


@pytest.fixture
async def service(services: Services, settings: Settings) -> AsyncIterator[Service]:
    yield await services.start(with_secrets(settings))


def with_secrets(settings: Settings, **others: Any) -> Settings:
    secrets = tuple(Secret(one) for one in SECRETS)
    return msgspec.structs.replace(settings, stripe_webhook_secrets=secrets, **others)


def told(stripe: Webhooks, kind: str = "invoice.paid", invoice: str = "in_1") -> Delivery:
    stripe.happened(kind, {"id": invoice, "object": "invoice"})
    return stripe.signed(stripe.events[-1])


async def post(
    service: Service, body: Any, signature: str | None, **headers: str
) -> tuple[int, Any]:
    sent = {**TEXT, **headers}
    if signature is not None:
        sent["Stripe-Signature"] = signature
    async with service.http.post(f"{service.url}{URL}", data=body, headers=sent) as answer:
        return answer.status, await answer.json(content_type=None)


async def kept(service: Service) -> int:
    return int(await service.sql.fetchval("SELECT COUNT(*) FROM stripe_events"))


async def test_an_event_is_kept_once_however_often_it_comes(
    service: Service, stripe: Webhooks
) -> None:
    one = told(stripe)
    for _ in range(3):
        assert await post(service, one.body, one.signature) == (
            200,
            {"received": True, "kept": True},
        )
    again = stripe.signed(stripe.events[0])
    assert (await post(service, again.body, again.signature))[0] == 200
    [row] = await service.sql.fetch("SELECT * FROM stripe_events")
    assert (row["event_id"], row["type"], row["stripe_invoice_id"]) == (
        one.event_id,
        "invoice.paid",
        "in_1",
    )
    assert (await kept(service), row["done_at"]) == (1, None)


async def test_an_event_that_changes_nothing_here_is_taken_and_not_kept(
    service: Service, stripe: Webhooks
) -> None:
    one = told(stripe, "customer.created", "cus_1")
    assert await post(service, one.body, one.signature) == (200, {"received": True, "kept": False})
    assert await kept(service) == 0


async def test_while_a_secret_is_replaced_either_is_believed(
    service: Service, stripe: Webhooks
) -> None:
    for secrets in (["whsec_old"], ["whsec_new"], ["whsec_new", "whsec_old"]):
        stripe.secrets = secrets
        one = told(stripe)
        assert (await post(service, one.body, one.signature))[0] == 200
    assert await kept(service) == 3


async def test_a_refusal_is_one_word_and_nothing_is_kept(
    service: Service, stripe: Webhooks, capsys: pytest.CaptureFixture[str]
) -> None:
    one = told(stripe)
    stripe.secrets = ["whsec_of_somebody"]
    forged = stripe.signed(stripe.events[0])
    stripe._clock.advance(-timedelta(seconds=310))
    old = stripe.signed(stripe.events[0])
    for signature, why in [
        (None, "missing"),
        ("t=1", "malformed"),
        (old.signature, "expired"),
        (forged.signature, "mismatch"),
    ]:
        status, said = await post(service, one.body, signature)
        assert (status, said["type"]) == (400, "urn:billing:problem:invalid-request")
        assert said["detail"] == f"Stripe-Signature: {why}"
    assert await kept(service) == 0
    logged = capsys.readouterr().out
    assert logged.count("webhook_refused") == 1  # a flood of them is one line a minute
    assert "whsec" not in logged and one.event_id not in logged


def forgeries(stripe: Webhooks, one: Delivery, other: Delivery) -> dict[str, tuple[bytes, str]]:
    """Of a genuine delivery, and another one of the same moment: body and header."""

    def signed(secret: str, later_s: int = 0, made: str = "v1", by: Any = sha256) -> str:
        at = unix_seconds(stripe._clock.now()) + later_s
        found = hmac.new(secret.encode(), b"%d." % at + one.body, by).hexdigest()
        return f"t={at},{made}={found}"

    body, header = one.body, one.signature
    time, signature = header.split(",")
    far = int(TOLERANCE.total_seconds()) + 60
    return {
        "a secret of another endpoint": (body, signed("whsec_other")),
        "a secret that was retired": (body, signed("whsec_older")),
        "an empty secret": (body, signed("")),
        "a replay when its time is over": (body, signed(SECRETS[0], -far)),
        "one from the future": (body, signed(SECRETS[0], far)),
        "a replay under a new time": (body, f"t={int(time[2:]) + 1},{signature}"),
        "a replay under two times": (body, f"{time},t=1,{signature}"),
        "the signature of another event": (body, other.signature),
        "the body of another event": (other.body, header),
        "an amount that was changed": (body.replace(b"in_1", b"in_7"), header),
        "the same written otherwise": (msgspec.json.encode(msgspec.json.decode(body)), header),
        "a body that was cut": (body[:-2], header),
        "a body with more after it": (body + b"{}", header),
        "no body": (b"", header),
        "another scheme": (body, signed(SECRETS[0], made="v0")),
        "a weaker hash": (body, signed(SECRETS[0], by=sha1)),
        "a signature that was cut": (body, header[:-1]),
        "a signature in capitals": (body, f"{time},{signature.upper().replace('V1', 'v1')}"),
        "a signature without its time": (body, signature),
        "a guess in each of many": (body, f"{time}" + f",v1={'0' * 64}" * 9),
    }


async def test_of_what_is_forged_or_replayed_nothing_is_kept(
    service: Service, stripe: Webhooks
) -> None:
    one, other = told(stripe), told(stripe, invoice="in_2")
    tried = forgeries(stripe, one, other)
    assert len(tried) >= 12
    for name, (body, header) in tried.items():
        status, said = await post(service, body, header)
        assert (status, said["type"]) == (400, "urn:billing:problem:invalid-request"), name
        assert said["detail"].startswith("Stripe-Signature: "), name
    assert await kept(service) == 0
    assert (await post(service, one.body, one.signature))[0] == 200, "but for all that it is told"
    assert await kept(service) == 1


async def test_a_head_that_is_forged_is_refused_before_its_body_is_there(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: 60000\r\nStripe-Signature: t=1,v1={'0' * 64}\r\n\r\n".encode()
    )
    assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()


async def test_without_postgres_what_is_forged_is_refused_and_what_is_not_comes_again(
    services: Services, settings: Settings, stripe: Webhooks
) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:9/none"
    service = await services.start(with_secrets(settings, database_url=nowhere))
    one = told(stripe)
    assert (await post(service, one.body + b" ", one.signature))[0] == 400
    status, said = await post(service, one.body, one.signature)
    assert (status, said["outcome"]) == (503, "not_recorded")


async def test_an_event_has_at_most_64_kilobytes(service: Service, stripe: Webhooks) -> None:
    stripe.happened("invoice.paid", {"id": "in_1", "note": ""})
    least = len(stripe.signed(stripe.events[0]).body)
    for size, status in [(MAX_EVENT, 200), (MAX_EVENT + 1, 413)]:
        stripe.events[0]["data"]["object"]["note"] = "x" * (size - least)
        one = stripe.signed(stripe.events[0])
        assert len(one.body) == size
        assert (await post(service, one.body, one.signature))[0] == status
        assert (await post(service, chunks(one.body), one.signature))[0] == status


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    """Without a length that is told before."""
    yield body[:1000]
    yield body[1000:]


async def test_another_kind_of_body_is_refused(service: Service, stripe: Webhooks) -> None:
    one = told(stripe)
    for header in ({"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}):
        assert (await post(service, one.body, one.signature, **header))[0] == 415


async def test_what_is_signed_and_too_deep_is_refused(service: Service, stripe: Webhooks) -> None:
    body = b'{"deep":' + b'{"a":' * 5000 + b"1" + b"}" * 5001
    at = unix_seconds(stripe._clock.now())
    made = hmac.new(SECRETS[0].encode(), b"%d." % at + body, sha256).hexdigest()
    assert (await post(service, body, f"t={at},v1={made}"))[0] == 400


async def test_what_is_signed_and_no_event_is_refused(service: Service, stripe: Webhooks) -> None:
    stripe.happened("invoice.paid", {"id": "in_1"})
    wrong: list[dict[str, Any]] = [
        {"id": "evt_1/../2"},
        {"id": 7},
        {"type": 7},
        {"created": -1},
        {"data": {"object": {"id": "in_1/pay"}}},
        {"data": {"object": {}}},
        {"data": None},
    ]
    for changed in wrong:
        one = stripe.signed({**stripe.events[0], **changed})
        status, said = await post(service, one.body, one.signature)
        assert (status, said["detail"]) == (400, "the body is not an event of Stripe's"), changed
    assert await kept(service) == 0


async def test_without_a_secret_nothing_is_taken(services: Services, stripe: Webhooks) -> None:
    service = await services.start()
    one = told(stripe)
    status, said = await post(service, one.body, one.signature)
    assert status == 404
    assert "STRIPE_WEBHOOK_SECRET" in said["detail"]


async def test_a_token_is_no_signature(service: Service, stripe: Webhooks) -> None:
    admin = service.token("admin")["Authorization"]
    assert (await post(service, told(stripe).body, None, Authorization=admin))[0] == 400
