"""What Stripe keeps: customers, invoices with their items, credit notes; and the rules of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from ledger.domain.stripe_invoice import unix_seconds
from tests.stripe_fake.clock import Clock

Object = dict[str, Any]
Happened = Callable[[str, Object], None]

_PREFIX = {"customer": "cus", "invoice": "in", "invoiceitem": "ii", "credit_note": "cn"}


class Problem(Exception):
    """Stripe refuses: a 4xx with this code."""

    def __init__(self, code: str, status: int = 400) -> None:
        self.code = code
        self.status = status
        super().__init__(code)


class Books:
    def __init__(self, clock: Clock, happened: Happened) -> None:
        self._clock = clock
        self._happened = happened
        self._made = 0
        self._then: datetime | None = None
        self.lists_behind = timedelta(0)  # what was made so lately is in no list yet
        self.objects: dict[str, dict[str, Object]] = {kind: {} for kind in _PREFIX}

    @contextmanager
    def at(self, earlier: datetime) -> Iterator[None]:
        """What is made meanwhile was made then: nobody has asked since."""
        self._then = earlier
        try:
            yield
        finally:
            self._then = None

    def time(self) -> datetime:
        return self._then or self._clock.now()

    def all(self, kind: str) -> list[Object]:
        """Newest first, as Stripe lists."""
        return list(reversed(self.objects[kind].values()))

    def customer(self, said: Object) -> Object:
        return self._make("customer", {}, said, "customer.created")

    def invoice(self, said: Object) -> Object:
        self.get("customer", said.get("customer", ""))
        if said.get("collection_method") == "send_invoice" and "days_until_due" not in said:
            raise Problem("parameter_missing")
        if any(one["number"] == said.get("number") for one in self.all("invoice")):
            raise Problem("invoice_number_taken")
        fields = {
            "customer": said["customer"],
            "currency": said["currency"],
            "number": said.get("number"),
            "auto_advance": said.get("auto_advance") == "true",
            "status": "draft",
            "due_date": self._now() + 86400 * int(said.get("days_until_due", 0)),
            **dict.fromkeys(("total", "subtotal", "amount_due", "amount_paid"), 0),
            "pre_payment_credit_notes_amount": 0,
            "status_transitions": dict.fromkeys(_MOMENTS),
            "lines": self.lines_of("", ()),
        }
        return self._make("invoice", fields, said, "invoice.created")

    def item(self, said: Object) -> Object:
        invoice = self.get("invoice", said.get("invoice", ""))
        if invoice["status"] != "draft":
            raise Problem("invoice_not_editable")
        if (said["customer"], said["currency"]) != (invoice["customer"], invoice["currency"]):
            raise Problem("invoice_mismatch")
        period = {name: int(value) for name, value in said.get("period", {}).items()}
        now = self._now()
        fields = {
            "customer": said["customer"],
            "invoice": said["invoice"],
            "amount": int(said["amount"]),
            "currency": said["currency"],
            "description": said.get("description"),
            "period": period or {"start": now, "end": now},
        }
        made = self._make("invoiceitem", fields, said, "invoiceitem.created")
        self._count(invoice)
        return made

    def finalize(self, invoice_id: str, said: Object) -> Object:
        invoice = self.get("invoice", invoice_id)
        if invoice["status"] != "draft":
            raise Problem("invoice_not_editable")
        if not self.items(invoice_id):
            raise Problem("invoice_no_customer_line_items")
        if invoice["total"] < 0:
            raise Problem("invoice_negative")  # Stripe would keep it as a balance: never ours
        self._becomes(invoice, "open" if invoice["total"] else "paid")
        invoice["auto_advance"] = said.get("auto_advance") == "true"
        return self._changed(invoice, "invoice.finalized")

    def void(self, invoice_id: str, said: Object) -> Object:
        invoice = self.get("invoice", invoice_id)
        if invoice["status"] not in ("open", "uncollectible"):
            raise Problem("invoice_not_editable")
        self._becomes(invoice, "void")
        return self._changed(invoice, "invoice.voided")

    def pay(self, invoice_id: str, said: Object) -> Object:
        invoice = self.get("invoice", invoice_id)
        if invoice["status"] != "open":
            raise Problem("invoice_not_editable")
        invoice["amount_paid"], invoice["amount_due"] = invoice["amount_due"], 0
        self._becomes(invoice, "paid")
        return self._changed(invoice, "invoice.paid")

    def fail_payment(self, invoice_id: str) -> Object:
        """The bank says no; the invoice stays as it is."""
        return self._changed(self.get("invoice", invoice_id), "invoice.payment_failed")

    def give_up(self, invoice_id: str) -> Object:
        """Somebody marks it uncollectible in the dashboard."""
        invoice = self.get("invoice", invoice_id)
        self._becomes(invoice, "uncollectible")
        return self._changed(invoice, "invoice.marked_uncollectible")

    def credit_note(self, said: Object) -> Object:
        invoice = self.get("invoice", said["invoice"])
        amount = int(said["amount"])
        if invoice["status"] != "open":
            raise Problem("invoice_not_creditable")  # of a paid one it must say where it goes
        if not 0 < amount <= invoice["amount_due"]:
            raise Problem("amount_too_large")
        invoice["pre_payment_credit_notes_amount"] += amount
        invoice["amount_due"] -= amount
        if not invoice["amount_due"]:
            self._becomes(invoice, "paid")
        fields = {
            "invoice": said["invoice"],
            "customer": invoice["customer"],
            "currency": invoice["currency"],
            "amount": amount,
            "total": amount,
            "status": "issued",
        }
        return self._make("credit_note", fields, said, "credit_note.created")

    def get(self, kind: str, wanted: str) -> Object:
        try:
            return self.objects[kind][wanted]
        except KeyError:
            raise Problem("resource_missing", 404) from None

    def items(self, invoice_id: str) -> list[Object]:
        return [one for one in self.all("invoiceitem") if one["invoice"] == invoice_id]

    def lines_of(self, invoice_id: str, items: Sequence[Object]) -> Object:
        """The first of them, as an invoice carries them; what was made of an item has its mark."""
        lines = [
            {
                "id": one["id"].replace("ii_", "il_"),
                "object": "line_item",
                "invoice": invoice_id,
                "livemode": False,
                **{name: one[name] for name in ("amount", "currency", "description", "period")},
                "metadata": dict(one["metadata"]),
            }
            for one in items[:_FIRST]
        ]
        more = len(items) > _FIRST
        return {"object": "list", "data": lines, "has_more": more, "url": "/v1/invoices/lines"}

    def listed(self, kind: str, said: Object, every: Sequence[Object] | None = None) -> Object:
        limit = int(said.get("limit", 10))
        created = said.get("created", {})
        since, until = int(created.get("gte", 0)), int(created.get("lt", 10**12))
        shown = unix_seconds(self._clock.now() - self.lists_behind)
        found = [
            one
            for one in (self.all(kind) if every is None else every)
            if since <= one.get("created", since) < until
            and (one.get("created") or one["date"]) <= shown
            and one.get("type") in said.get("types", [one.get("type")])
            and all(said.get(name, one.get(name)) == one.get(name) for name in _FILTERS)
        ]
        if "starting_after" in said:
            ids = [one["id"] for one in found]
            if said["starting_after"] not in ids:
                raise Problem("resource_missing")
            found = found[ids.index(said["starting_after"]) + 1 :]
        return {
            "object": "list",
            "data": found[:limit],
            "has_more": len(found) > limit,
            "url": f"/v1/{kind}s",
        }

    def _make(self, kind: str, fields: Object, said: Object, event: str) -> Object:
        self._made += 1
        made = {
            "id": f"{_PREFIX[kind]}_{self._made:014d}",
            "object": kind,
            "date" if kind == "invoiceitem" else "created": self._now(),
            "livemode": False,
            "metadata": dict(said.get("metadata", {})),
            **fields,
        }
        self.objects[kind][made["id"]] = made
        return self._changed(made, event)

    def _count(self, invoice: Object) -> None:
        items = self.items(invoice["id"])
        total = sum(one["amount"] for one in items)
        invoice.update(total=total, subtotal=total, amount_due=max(total, 0))
        invoice["lines"] = self.lines_of(invoice["id"], items)

    def _becomes(self, invoice: Object, status: str) -> None:
        invoice["status"] = status
        moment = {"open": "finalized_at", "void": "voided_at", "paid": "paid_at"}
        invoice["status_transitions"][moment.get(status, "marked_uncollectible_at")] = self._now()

    def _changed(self, one: Object, event: str) -> Object:
        self._happened(event, one)
        return one

    def _now(self) -> int:
        return unix_seconds(self.time())


_FILTERS = ("customer", "invoice")
_FIRST = 10  # lines that an invoice carries itself
_MOMENTS = ("finalized_at", "marked_uncollectible_at", "paid_at", "voided_at")
