"""A queue that serves its tenants in turn: who sends much waits for himself, others do not wait
for him."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First in, first out for each tenant; one item of each tenant in turn."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[T]] = {}
        self._turn: deque[Hashable] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, tenant: Hashable, item: T) -> None:
        queue = self._queues.get(tenant)
        if queue is None:
            self._queues[tenant] = deque((item,))
            self._turn.append(tenant)
        else:
            queue.append(item)
        self._size += 1

    def take(self) -> T:
        """The next item. Raises `IndexError` when there is none."""
        tenant = self._turn.popleft()
        queue = self._queues[tenant]
        item = queue.popleft()
        self._size -= 1
        if queue:
            self._turn.append(tenant)
        else:
            del self._queues[tenant]
        return item

    def drop(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Takes from the front of every tenant's items as long as they are unwanted."""
        dropped: list[T] = []
        for tenant, queue in list(self._queues.items()):
            while queue and unwanted(queue[0]):
                dropped.append(queue.popleft())
            if not queue:
                del self._queues[tenant]
        self._turn = deque(tenant for tenant in self._turn if tenant in self._queues)
        self._size -= len(dropped)
        return dropped
