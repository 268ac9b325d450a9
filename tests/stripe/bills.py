"""Invoices of ours to deliver."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from uuid import UUID

from ledger.domain.period import Span
from ledger.domain.stripe_invoice import Bill, BilledLine

OCTOBER = Span(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
NOVEMBER = Span(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))


def uuid(random: Random) -> UUID:
    return UUID(int=random.getrandbits(128), version=4)


def example(seed: int = 0) -> Bill:
    """A base fee, usage, a credit and a line that costs nothing."""
    random = Random(seed)
    lines = (
        BilledLine(line_id=uuid(random), kind="base_fee", amount=Decimal("499.00"), span=NOVEMBER),
        BilledLine(
            line_id=uuid(random),
            kind="usage",
            usage_type="api_calls",
            quantity=Decimal("100400"),
            amount=Decimal("0.60"),
            span=OCTOBER,
        ),
        BilledLine(line_id=uuid(random), kind="credit", amount=Decimal("-33.33")),
        BilledLine(
            line_id=uuid(random),
            kind="usage",
            usage_type="ward_rounds",
            quantity=Decimal("12.50"),
            amount=Decimal(0),
            span=OCTOBER,
        ),
    )
    return bill(lines, seed)


def drawn(seed: int) -> Bill:
    random = Random(seed)
    cents = [random.randrange(1, 10**6) for _ in range(random.randrange(1, 4))]
    lines = [
        BilledLine(line_id=uuid(random), kind="usage", usage_type="api_calls", amount=money(one))
        for one in cents
    ]
    if random.randrange(2):
        given = money(-random.randrange(sum(cents)))
        lines.append(BilledLine(line_id=uuid(random), kind="credit", amount=given))
    return bill(tuple(lines), seed)


def of_one_line(seed: int) -> Bill:
    usage = BilledLine(line_id=UUID(int=seed + 1), kind="usage", amount=money(seed + 1))
    return bill((usage,), seed)


def money(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)


def bill(lines: tuple[BilledLine, ...], seed: int, currency: str = "USD") -> Bill:
    random = Random(seed + 1_000_000)
    return Bill(
        invoice_id=uuid(random),
        payer_id=uuid(random),
        number=f"INV-{seed + 1:08d}",
        currency=currency,
        total=sum((line.amount for line in lines), Decimal(0)),
        days_until_due=30,
        lines=lines,
    )
