"""One tenant's crowd does not stand before another's first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.fair import FairQueue


def filled(*items: str, turn: int = 2) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue(turn)
    for item in items:
        queue.put(item[0], item)
    return queue


def test_tenants_take_turns() -> None:
    queue = filled("a1", "a2", "a3", "a4", "a5", "b1", "c1", "c2", "c3")
    assert queue.take(9) == ["a1", "a2", "b1", "c1", "c2", "a3", "a4", "c3", "a5"]
    assert queue.take(1) == []


def test_a_turn_may_go_over_several_takings() -> None:
    queue = filled("a1", "a2", "a3", "b1")
    assert [queue.take(1) for _ in range(4)] == [["a1"], ["a2"], ["b1"], ["a3"]]


def test_who_comes_while_others_crowd_is_served_after_a_turn_of_each() -> None:
    queue = filled(*(f"{who}{number}" for who in "abc" for number in range(9)))
    queue.put("v", "v1")
    assert queue.take(7)[-1] == "v1"


def test_a_tenant_that_comes_back_waits_its_turn() -> None:
    queue = filled("a1", "b1", "b2", turn=1)
    assert queue.take(1) == ["a1"]
    queue.put("a", "a2")
    assert queue.take(3) == ["b1", "a2", "b2"]


def test_unwanted_items_are_dropped_from_the_front_only() -> None:
    queue: FairQueue[int] = FairQueue(1)
    for tenant, item in (("a", 1), ("a", 2), ("a", 9), ("a", 1), ("b", 1), ("c", 9)):
        queue.put(tenant, item)
    assert sorted(queue.drop(lambda item: item < 5)) == [1, 1, 2]
    assert (len(queue), queue.held("a"), queue.held("b")) == (3, 2, 0)
    assert queue.take(9) == [9, 9, 1]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), max_size=80),
    st.integers(1, 4),
)
def test_nothing_is_lost_doubled_or_reordered_within_a_tenant(
    steps: list[tuple[int, int, bool]], turn: int
) -> None:
    queue: FairQueue[tuple[int, int]] = FairQueue(turn)
    put: dict[int, list[int]] = {}
    taken: dict[int, list[int]] = {}

    def note(found: list[tuple[int, int]]) -> int:
        for tenant, item in found:
            taken.setdefault(tenant, []).append(item)
        return len(found)

    for number, (tenant, count, drops) in enumerate(steps):
        queue.put(tenant, (tenant, number))
        put.setdefault(tenant, []).append(number)
        before = len(queue)
        assert note(queue.take(count)) == min(count, before) == before - len(queue)
        if drops:
            note(queue.drop(lambda item: item[1] % 3 == 0))
    while note(queue.take(7)):
        pass
    assert (taken, len(queue)) == (put, 0)
