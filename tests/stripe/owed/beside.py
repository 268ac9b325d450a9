"""Invoices that are in Stripe, and what comparing says of them."""

from __future__ import annotations

from datetime import timedelta

from ledger.domain.stripe_invoice import Bill
from ledger.reconcile.stripe_report import StripeReport
from tests.stripe.bills import drawn
from tests.stripe.owed.shop import Shop
from tests.stripe_fake.books import Object

ONE, OTHER = drawn(1), drawn(2)
HOUR = timedelta(hours=1)


def named(report: StripeReport) -> set[tuple[str, str, str | None]]:
    return {(one.kind, one.what, one.number) for one in report.findings}


async def delivered(shop: Shop, *bills: Bill) -> list[Object]:
    """What Stripe has of each."""
    for one in bills:
        await shop.issue(one)
    await shop.deliver()
    shop.clock.advance(HOUR)
    return [shop.ours("invoice", one.invoice_id)[0] for one in bills]
