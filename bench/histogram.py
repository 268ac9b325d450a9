"""A histogram of high dynamic range: every latency from nanoseconds to minutes, three digits each.

The scheme of HdrHistogram in a few lines: the leading bits of a value are its bucket, so the error
is below 0.1 % at any magnitude and nothing is ever cut off at a "maximum".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

_BITS = 11  # kept of a value: a bucket is at most 1/1024 of it wide


class Histogram:
    """Counts of whole, not negative numbers."""

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._counts = Counter(map(_bucket, values))  # by the least value of a bucket

    def merge(self, other: Histogram) -> None:
        """Adds another's counts: percentiles of several loads are not averages of theirs."""
        self._counts.update(other._counts)

    def percentiles(self, *percents: float) -> list[int]:
        """For each, a value that so many percent do not exceed; 0 when nothing was counted."""
        total = self._counts.total()
        ranks = sorted((max(1, math.ceil(one * total / 100)), one) for one in percents)
        found = dict.fromkeys(percents, 0)
        seen, waiting = 0, iter(ranks)
        rank, percent = next(waiting, (math.inf, 0.0))
        for least in sorted(self._counts):
            seen += self._counts[least]
            while seen >= rank:
                found[percent] = least + (1 << _shift(least)) - 1
                rank, percent = next(waiting, (math.inf, 0.0))
        return [found[one] for one in percents]

    def percentiles_ms(self, *percents: float) -> list[float]:
        """The same in ms, for values in ns."""
        return [value / 1e6 for value in self.percentiles(*percents)]


def _shift(value: int) -> int:
    return max(0, value.bit_length() - _BITS)


def _bucket(value: int) -> int:
    shift = _shift(value)
    return value >> shift << shift
