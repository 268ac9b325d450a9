"""One call of the record script: made event by event, because on the hot path that is done while
Redis decides the call before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lua import keys
from lua.packing import ANSWER, DECISION, NONE, pack_said
from lua.types import Answer, Event, Outcome, Recorded

QUOTA_TTL_S = 24 * 3600  # the spec's TTL of a quota; refreshed whenever it is used


class RecordCall:
    """Keys and arguments in the order of `record.lua`, and what its reply means."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._partitions: dict[int, int] = {}
        self._counters: dict[tuple[int, bytes, str], int] = {}
        self._events: list[Any] = []
        for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        partitions, counters = self._partitions, self._counters
        partition, who, usage_type = event.partition, event.who, event.usage_type
        pool, pool_place = keys.pool_of(who), 0
        user_place = counters.setdefault((partition, who, usage_type), len(counters) + 1)
        if pool is not None:
            pool_place = counters.setdefault((partition, pool, usage_type), len(counters) + 1)
        occurred = event.occurred_at
        self._events += (
            DECISION.pack(
                partitions.setdefault(partition, len(partitions) + 1),
                user_place,
                pool_place,
                event.looked_up,
                occurred is not None,
                event.units,
                occurred or 0,
            ),
            pack_said(event.usage_id, event.fingerprint, usage_type, who, event.payload),
        )

    def key_names(self) -> list[str]:
        names: list[str] = []
        for partition in self._partitions:
            names += keys.of_partition(partition)
        names += [keys.quota(partition, subject) for partition, subject, _ in self._counters]
        return names

    def args(self, enforce: bool, cap: int, touch: bool = False) -> list[Any]:
        return [
            len(self._partitions), int(enforce), cap, QUOTA_TTL_S, int(touch), *self._events
        ]  # fmt: skip

    def read(self, reply: Sequence[Any]) -> Recorded:
        last_ids, *answers = reply
        return Recorded(
            [_answer(row) for row in answers],
            {
                partition: last_id.decode()
                for partition, last_id in zip(self._partitions, last_ids, strict=True)
                if last_id
            },
        )


_OUTCOMES = list(Outcome)  # by number


def _answer(row: Any) -> Answer:
    """An answer as `record.lua` says it: an outcome, or all of it packed, and a detail to each."""
    detail = None
    if isinstance(row, list):
        row, detail = row
    if isinstance(row, int):
        return Answer(_OUTCOMES[row], detail=detail)
    outcome, at, remaining, exceeded, scope, limit, starts, ends = ANSWER.unpack(row)
    return Answer(
        _OUTCOMES[outcome],
        at,
        None if remaining == NONE else remaining,
        exceeded,
        scope,
        limit,
        starts,
        ends,
        detail,
    )
