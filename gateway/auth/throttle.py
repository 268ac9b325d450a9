"""Holds up who sends one bad token after the other; in memory, so that it costs Redis nothing."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from gateway.problems import Kind, Problem
from ledger import clock

WINDOW_S = 60
BAD_TOKENS = 200  # in a window; a whole clinic may be behind one address, with an expired token
ADDRESSES = 10_000


class Throttle:
    """Counts bad tokens by address."""

    def __init__(self) -> None:
        self._counted: dict[str, tuple[float, int]] = {}  # when its window ends, and how many

    def bad(self, peer: str | None) -> None:
        """Counts a bad token. Raises the 429 problem when there were too many."""
        name, now = _name(peer), clock.monotonic()
        ends, bad = self._counted.get(name, (0.0, 0))
        if ends <= now:
            ends, bad = now + WINDOW_S, 0
            self._counted.pop(name, None)  # as the newest
            if len(self._counted) >= ADDRESSES:
                del self._counted[next(iter(self._counted))]  # the oldest
        self._counted[name] = (ends, bad + 1)
        self.check(peer)

    def check(self, peer: str | None) -> None:
        """Raises the 429 problem for who has sent too many."""
        ends, bad = self._counted.get(_name(peer), (0.0, 0))
        left = ends - clock.monotonic()
        if bad > BAD_TOKENS and left > 0:
            wait = int(left) + 1
            raise Problem(
                Kind.RATE_LIMITED,
                "too many bad tokens came from this address; wait and retry with a good one",
                {"Retry-After": str(wait)},
                retry_after=wait,
            )


def _name(peer: str | None) -> str:
    """The address; of IPv6 the network, which one host may have all of."""
    try:
        address = ip_address((peer or "").partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(IPv6Address(int(address) >> 64 << 64))
    return str(getattr(address, "ipv4_mapped", None) or address)
