"""What Stripe's meters keep: events by identifier, and what they add up to."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from datetime import datetime, timedelta

from ledger.domain.stripe_invoice import unix_seconds
from tests.stripe_fake.books import Books, Object, Problem
from tests.stripe_fake.clock import Clock

KEPT = timedelta(hours=24)  # an identifier: at least, it says; here exactly
OLDEST, NEWEST = timedelta(days=35), timedelta(minutes=5)


class Meters:
    """`lag`: how long until what was taken shows in the sums. `speechless`: a duplicate is refused
    without a code, as some of Stripe's answers are. `takes_less`: values below 0 are taken."""

    def __init__(self, clock: Clock, books: Books) -> None:
        self._clock = clock
        self._books = books
        self.all: list[Object] = []
        self.events: list[Object] = []
        self.lag = timedelta(minutes=30)
        self.speechless = False
        self.takes_less = True
        self._identifiers: dict[str, datetime] = {}
        self._under_way: set[tuple[str, str]] = set()
        self.met = 0  # requests that met another of the same customer and meter

    def make(self, event_name: str, formula: str = "sum", status: str = "active") -> Object:
        made = {
            "id": f"mtr_test_{len(self.all) + 1:014d}",
            "object": "billing.meter",
            "event_name": event_name,
            "display_name": event_name,
            "status": status,
            "default_aggregation": {"formula": formula},
            "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
            "value_settings": {"event_payload_key": "value"},
            "livemode": False,
        }
        self.all.append(made)
        return made

    async def alone(self, said: Object) -> bool:
        """Whether no other of the customer and meter is under way; for a moment this one is."""
        key = said["event_name"], said["payload"].get("stripe_customer_id", "")
        if key in self._under_way:
            self.met += 1
            return False
        self._under_way.add(key)
        await asyncio.sleep(0.002)  # lets another come in between
        self._under_way.discard(key)
        return True

    def event(self, said: Object) -> Object:
        now = self._books.time()
        self._identifiers = {
            one: since for one, since in self._identifiers.items() if now - since < KEPT
        }
        at = int(said.get("timestamp", unix_seconds(now)))
        if not unix_seconds(now - OLDEST) <= at <= unix_seconds(now + NEWEST):
            raise Problem("timestamp_out_of_window")
        if not any(
            (one["event_name"], one["status"]) == (said["event_name"], "active") for one in self.all
        ):
            raise Problem("no_meter")
        payload = said["payload"]
        self._books.get("customer", payload.get("stripe_customer_id", ""))
        sign = "-?" if self.takes_less else ""
        if not re.fullmatch(rf"{sign}[0-9]+", payload.get("value", "")):
            raise Problem("meter_event_invalid_value")
        identifier = said["identifier"]
        if identifier in self._identifiers:
            raise Problem("" if self.speechless else "duplicate_meter_event")
        self._identifiers[identifier] = now
        made = {
            "object": "billing.meter_event",
            "created": unix_seconds(now),
            "event_name": said["event_name"],
            "identifier": identifier,
            "livemode": False,
            "payload": dict(payload),
            "timestamp": at,
        }
        self.events.append(made)
        return made

    def listed(self, said: Object) -> Object:
        found = [one for one in self.all if said.get("status", one["status"]) == one["status"]]
        return {"object": "list", "data": found, "has_more": False, "url": "/v1/billing/meters"}

    def summaries(self, meter_id: str, said: Object) -> Object:
        start, end = int(said["start_time"]), int(said["end_time"])
        if start % 60 or end % 60:
            raise Problem("parameter_invalid_integer")
        [meter] = [one for one in self.all if one["id"] == meter_id]
        shown = unix_seconds(self._clock.now() - self.lag)
        value = sum(
            int(one["payload"]["value"])
            for one in self.events
            if one["event_name"] == meter["event_name"]
            and one["payload"]["stripe_customer_id"] == said["customer"]
            and start <= one["timestamp"] < end
            and one["created"] <= shown
        )
        summary = {
            "id": "mtrusg_test_00000000000001",
            "object": "billing.meter_event_summary",
            "aggregated_value": value,
            "start_time": start,
            "end_time": end,
            "livemode": False,
            "meter": meter_id,
        }
        url = f"/v1/billing/meters/{meter_id}/event_summaries"
        return {"object": "list", "data": [summary], "has_more": False, "url": url}

    def totals(self) -> dict[tuple[str, str], list[tuple[int, int]]]:
        """Of each customer and event name: when and how much."""
        found = defaultdict(list)
        for one in self.events:
            key = one["payload"]["stripe_customer_id"], one["event_name"]
            found[key].append((one["timestamp"], int(one["payload"]["value"])))
        return dict(found)
