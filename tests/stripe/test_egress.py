"""Only our ids, Stripe's ids, numbers and fixed words leave."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import stripe
from stripe import _telemetry_id

from ledger.domain.stripe_egress import NotOpaque, check
from ledger.domain.stripe_invoice import Ids, customer_call, invoice_calls, request_of
from ledger.stripe_api import StripeApi
from tests.stripe.bills import example
from tests.stripe.delivery import Delivery, calls_of
from tests.stripe_fake.clock import Clock
from tests.stripe_fake.server import API_KEY, FakeStripe

IDS = Ids(customer="cus_1", invoice="in_1")
# What may be in a request beside our own numbers; aiohttp's own headers are the last four.
HEADERS = {
    "Authorization", "Content-Type", "Idempotency-Key", "Stripe-Version",
    "Host", "Accept", "Accept-Encoding", "User-Agent", "Content-Length",
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("description", "Usage: Maria Musterfrau"),
        ("description", "Usage: API calls, E11.9"),
        ("description", "Usage: API calls, 1\n2"),
        ("description", "Base fee 123-45-6789"),
        ("name", "Maria Musterfrau"),
        ("email", "maria@example.org"),
        ("number", "MRN-00000001"),
        ("amount", 1.5),
        ("currency", "usd; maria"),
        ("customer", "maria@example.org"),
        ("invoice", "in_1/../customers"),
        ("auto_advance", True),
        ("metadata", {"billing_id": "maria"}),
        ("metadata", {"maria": "1c6f7f0e-52a5-4f5e-8a2e-0d3b6f1f5a01"}),
        ("metadata", {"billing_id": {"maria": "1"}}),
        ("metadata", "maria"),
        ("period", {"start": "maria"}),
        ("amount", "\u0661\u0662"),  # digits, but not ours
    ],
)
def test_what_is_not_on_the_list_does_not_leave_and_is_not_told(field: str, value: Any) -> None:
    with pytest.raises(NotOpaque) as refused:
        check("/v1/invoiceitems", {field: value})
    assert "maria" not in str(refused.value).lower()


@pytest.mark.parametrize(
    "path", ["/v1/charges", "/v1/invoices/maria", "/v1/invoices/in_1/send", "/v1/customers/cus_1"]
)
def test_no_other_path_is_asked(path: str) -> None:
    with pytest.raises(NotOpaque):
        check(path, {})


def test_everything_that_an_invoice_needs_may_leave() -> None:
    for call in calls_of(example()):
        request = request_of(call, IDS)
        check(request.path, request.params)


async def test_the_adapter_sends_nothing_that_may_not_leave(
    fake: FakeStripe, api: StripeApi
) -> None:
    call = invoice_calls(example())[1]
    told = msgspec.structs.replace(call, params={**call.params, "description": "Maria Musterfrau"})
    with pytest.raises(NotOpaque):
        await api.send(told, IDS)
    assert fake.seen == []


async def test_whole_requests_hold_nothing_else(
    fake: FakeStripe, api: StripeApi, clock: Clock
) -> None:
    delivery = Delivery(api, clock)
    ids = await delivery.bill(example())
    for call in calls_of(example()):
        assert await api.find(call, ids, clock.now())
    assert len(fake.seen) > 12
    for seen in fake.seen:
        assert seen.headers.keys() <= HEADERS
        assert re.fullmatch(r"Python/[\d.]+ aiohttp/[\d.]+", seen.headers["User-Agent"])
        assert "ward" not in seen.text and "rounds" not in seen.text  # named by an operator


async def test_the_library_leaves_no_id_of_this_machine(
    api: StripeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(_telemetry_id, "_loaded", False)
    await api.send(customer_call(example().payer_id), Ids())
    assert list(tmp_path.iterdir()) == []
    assert not stripe.enable_telemetry


def test_a_process_that_delivers_nothing_does_not_load_the_library() -> None:
    script = "import sys, ledger.__main__, gateway.__main__; sys.exit('stripe' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_key_shows_in_no_repr() -> None:
    made = StripeApi(API_KEY)
    assert API_KEY not in f"{made!r} {vars(made)!r}"
