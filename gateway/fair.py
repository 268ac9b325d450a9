"""A queue in order of arrival in which nobody can stand before everybody else: of each taking, a
tenant gets a share as long as others wait.

Not one of each tenant in turn: requests of many events would then all end at the same time, and
Redis and the gateway would work one after the other instead of side by side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First in, first out for each tenant; and for all, but for those past their share."""

    def __init__(self, share: int) -> None:
        self._share = share
        self._arrived: deque[tuple[Hashable, T]] = deque()
        self._deferred: dict[Hashable, deque[T]] = {}  # past their share; older than `arrived`
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, tenant: Hashable, item: T) -> None:
        self._arrived.append((tenant, item))
        self._size += 1

    def take(self, count: int) -> list[T]:
        """The next items, at most so many."""
        taken: list[T] = []
        had: dict[Hashable, int] = {}
        for tenant in list(self._deferred)[:count]:
            had[tenant] = self._from_deferred(tenant, min(self._share, count - len(taken)), taken)
        while self._arrived and len(taken) < count:
            tenant, item = self._arrived.popleft()
            number = had.get(tenant, 0)
            if tenant in self._deferred or number >= self._share:
                self._deferred.setdefault(tenant, deque()).append(item)
            else:
                had[tenant] = number + 1
                taken.append(item)
        for tenant in list(self._deferred):  # nobody else waits
            self._from_deferred(tenant, count - len(taken), taken)
        self._size -= len(taken)
        return taken

    def _from_deferred(self, tenant: Hashable, most: int, taken: list[T]) -> int:
        queue = self._deferred.pop(tenant)
        number = min(most, len(queue))
        taken += [queue.popleft() for _ in range(number)]
        if queue:
            self._deferred[tenant] = queue  # behind the others
        return number

    def drop(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Takes what is unwanted from the front: of the arrived, and of each of the deferred."""
        dropped: list[T] = []
        for tenant, queue in list(self._deferred.items()):
            while queue and unwanted(queue[0]):
                dropped.append(queue.popleft())
            if not queue:
                del self._deferred[tenant]
        while self._arrived and unwanted(self._arrived[0][1]):
            dropped.append(self._arrived.popleft()[1])
        self._size -= len(dropped)
        return dropped
