"""What Stripe tells of: signed events, which come twice, out of order, late or never."""

from __future__ import annotations

import copy
import hmac
import json
from collections.abc import Sequence
from hashlib import sha256
from random import Random
from typing import Any, NamedTuple

from ledger.domain.stripe_invoice import unix_seconds
from tests.stripe_fake.clock import Clock


class Delivery(NamedTuple):
    """One POST of Stripe's: its raw body and the header `Stripe-Signature`."""

    event_id: str
    body: bytes
    signature: str


class Webhooks:
    """`secrets`: two while one is being replaced; each signs."""

    def __init__(self, clock: Clock, version: str, secrets: Sequence[str]) -> None:
        self._clock = clock
        self._version = version
        self.secrets = list(secrets)
        self.events: list[dict[str, Any]] = []
        self._waiting: list[dict[str, Any]] = []

    def happened(self, kind: str, about: dict[str, Any]) -> None:
        event = {
            "id": f"evt_{len(self.events) + 1:014d}",
            "object": "event",
            "api_version": self._version,
            "created": unix_seconds(self._clock.now()),
            "data": {"object": copy.deepcopy(about)},
            "livemode": False,
            "pending_webhooks": 1,
            "type": kind,
        }
        self.events.append(event)
        self._waiting.append(event)

    def deliveries(
        self,
        random: Random,
        *,
        lost: int = 0,
        twice: int = 0,
        late: int = 0,
        shuffled: bool = False,
    ) -> list[Delivery]:
        """Those that come now. Of a hundred so many are lost for good, come twice, or come with
        the next ones."""
        now: list[dict[str, Any]] = []
        later: list[dict[str, Any]] = []
        for event in self._waiting:
            if random.randrange(100) < lost:
                continue
            if random.randrange(100) < late:
                later.append(event)
                continue
            now += [event, event] if random.randrange(100) < twice else [event]
        if shuffled:
            random.shuffle(now)
        self._waiting = later
        return [self.signed(event) for event in now]

    def signed(self, event: dict[str, Any]) -> Delivery:
        body = json.dumps(event, indent=2).encode()
        at = unix_seconds(self._clock.now())
        signatures = [_signature(secret, at, body) for secret in self.secrets]
        return Delivery(event["id"], body, ",".join((f"t={at}", *signatures)))


def _signature(secret: str, at: int, body: bytes) -> str:
    made = hmac.new(secret.encode(), b"%d." % at + body, sha256).hexdigest()
    return f"v1={made}"
