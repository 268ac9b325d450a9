"""A queue that serves its tenants in turn: who sends much waits for himself, others do not wait
for him."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First in, first out for each tenant. A turn is up to `turn` items: one by one, requests of
    many events would all end at the same time, and Redis and the gateway would work one after the
    other instead of side by side."""

    def __init__(self, turn: int) -> None:
        self._turn = turn
        self._queues: dict[Hashable, deque[T]] = {}
        self._order: deque[Hashable] = deque()
        self._left = turn  # of the first one's turn
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def held(self, tenant: Hashable) -> int:
        """How many items of a tenant wait."""
        return len(self._queues.get(tenant, ()))

    def put(self, tenant: Hashable, item: T) -> None:
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = deque()
            self._order.append(tenant)
        queue.append(item)
        self._size += 1

    def take(self, count: int) -> list[T]:
        """The next items, at most so many."""
        taken: list[T] = []
        while self._order and len(taken) < count:
            queue = self._queues[self._order[0]]
            number = min(len(queue), self._left, count - len(taken))
            taken += [queue.popleft() for _ in range(number)]
            self._left -= number
            if not queue:
                del self._queues[self._order.popleft()]
                self._left = self._turn
            elif not self._left:
                self._order.rotate(-1)
                self._left = self._turn
        self._size -= len(taken)
        return taken

    def drop(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Takes from the front of every tenant's items as long as they are unwanted."""
        dropped: list[T] = []
        for queue in self._queues.values():
            while queue and unwanted(queue[0]):
                dropped.append(queue.popleft())
        first = self._order[0] if self._order else None
        self._queues = {tenant: queue for tenant, queue in self._queues.items() if queue}
        self._order = deque(tenant for tenant in self._order if tenant in self._queues)
        if self._order and self._order[0] != first:
            self._left = self._turn
        self._size -= len(dropped)
        return dropped
