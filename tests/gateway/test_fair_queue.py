"""One tenant's crowd does not stand before another's first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fair import FairQueue


def test_tenants_are_served_in_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.put(item[0], item)
    assert [queue.take() for _ in range(6)] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    with pytest.raises(IndexError):
        queue.take()


def test_a_tenant_that_comes_back_waits_its_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "b1", "b2"):
        queue.put(item[0], item)
    assert queue.take() == "a1"
    queue.put("a", "a2")
    assert [queue.take() for _ in range(3)] == ["b1", "a2", "b2"]


def test_unwanted_items_are_dropped_from_the_front_only() -> None:
    queue: FairQueue[int] = FairQueue()
    for tenant, item in (("a", 1), ("a", 2), ("a", 9), ("a", 1), ("b", 1), ("c", 9)):
        queue.put(tenant, item)
    assert sorted(queue.drop(lambda item: item < 5)) == [1, 1, 2]
    assert len(queue) == 3
    assert [queue.take() for _ in range(3)] == [9, 9, 1]


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=80))
def test_nothing_is_lost_doubled_or_reordered_within_a_tenant(
    steps: list[tuple[int, bool]],
) -> None:
    queue: FairQueue[tuple[int, int]] = FairQueue()
    put: dict[int, list[int]] = {}
    taken: dict[int, list[int]] = {}
    for number, (tenant, take) in enumerate(steps):
        queue.put(tenant, (tenant, number))
        put.setdefault(tenant, []).append(number)
        if take:
            of, item = queue.take()
            taken.setdefault(of, []).append(item)
    while queue:
        of, item = queue.take()
        taken.setdefault(of, []).append(item)
    assert taken == put
