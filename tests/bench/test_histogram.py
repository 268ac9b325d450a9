"""Percentiles are those of the exact values, to three digits at any magnitude."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from bench.histogram import Histogram

values = st.lists(st.integers(0, 10**12), min_size=1, max_size=300)
percents = st.sampled_from([0.0, 0.1, 50.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0])


@given(values, percents)
def test_a_percentile_is_never_below_the_exact_one_nor_a_thousandth_above(
    counted: list[int], percent: float
) -> None:
    exact = sorted(counted)[max(1, math.ceil(percent * len(counted) / 100)) - 1]
    [found] = Histogram(counted).percentiles(percent)
    assert exact <= found <= exact * (1 + 1 / 1024) + 1


@given(values, values)
def test_merged_percentiles_are_those_of_all_values(some: list[int], others: list[int]) -> None:
    merged = Histogram(some)
    merged.merge(Histogram(others))
    asked = (100.0, 1.0, 50.0, 99.0, 50.0)
    assert merged.percentiles(*asked) == Histogram(some + others).percentiles(*asked)


def test_nothing_counted_is_zero() -> None:
    assert Histogram().percentiles(50, 99) == [0, 0]
