"""In order of arrival, but no tenant's crowd stands before everybody else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.fair import FairQueue


def filled(*items: str, share: int = 2) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue(share)
    for item in items:
        queue.put(item[0], item)
    return queue


def test_within_their_shares_all_are_served_in_order_of_arrival() -> None:
    queue = filled("a1", "b1", "a2", "c1", "b2")
    assert queue.take(3) == ["a1", "b1", "a2"]
    assert queue.take(3) == ["c1", "b2"]
    assert queue.take(3) == []


def test_past_its_share_a_tenant_lets_the_others_through() -> None:
    queue = filled("a1", "a2", "a3", "a4", "b1", "c1")
    assert queue.take(4) == ["a1", "a2", "b1", "c1"]
    assert queue.take(4) == ["a3", "a4"]


def test_where_nobody_else_waits_there_is_no_share() -> None:
    assert filled("a1", "a2", "a3", "a4").take(3) == ["a1", "a2", "a3"]


def test_who_was_put_off_comes_before_those_who_came_later() -> None:
    queue = filled("a1", "a2", "a3", "b1")
    assert queue.take(3) == ["a1", "a2", "b1"]
    for item in ("c1", "c2", "a4"):
        queue.put(item[0], item)
    assert queue.take(3) == ["a3", "c1", "c2"]
    assert queue.take(3) == ["a4"]


def test_tenants_that_were_put_off_take_turns() -> None:
    queue = filled("a1", "a2", "a3", "b1", "b2", "b3", "c1", share=1)
    assert queue.take(3) == ["a1", "b1", "c1"]
    assert [queue.take(1) for _ in range(4)] == [["a2"], ["b2"], ["a3"], ["b3"]]


def test_unwanted_items_are_dropped_from_the_front_only() -> None:
    queue: FairQueue[int] = FairQueue(1)
    for tenant, item in (("a", 8), ("a", 1), ("a", 9), ("b", 8)):
        queue.put(tenant, item)
    assert queue.take(2) == [8, 8]
    for tenant, item in (("b", 1), ("b", 9), ("b", 1)):
        queue.put(tenant, item)
    assert sorted(queue.drop(lambda item: item < 5)) == [1, 1]
    assert len(queue) == 3
    assert sorted(queue.take(9)) == [1, 9, 9]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=80),
    st.integers(1, 4),
)
def test_nothing_is_lost_doubled_or_reordered_within_a_tenant(
    steps: list[tuple[int, int]], share: int
) -> None:
    queue: FairQueue[tuple[int, int]] = FairQueue(share)
    put: dict[int, list[int]] = {}
    taken: dict[int, list[int]] = {}

    def take(count: int) -> int:
        before, found = len(queue), queue.take(count)
        assert len(found) == min(count, before) == before - len(queue)
        for tenant, item in found:
            taken.setdefault(tenant, []).append(item)
        return len(found)

    for number, (tenant, count) in enumerate(steps):
        queue.put(tenant, (tenant, number))
        put.setdefault(tenant, []).append(number)
        take(count)
    while take(7):
        pass
    assert taken == put
