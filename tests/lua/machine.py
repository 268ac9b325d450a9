"""Drives the record script and its model through the same history and compares them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger.domain.quantity import MAX_UNITS
from lua.scripts import Event, Limit, LoadOutcome, LookedUp
from tests.lua.kit import (
    DAY_MS,
    MEMBER,
    NOON_MS,
    OTHER_MEMBER,
    PARTITION,
    POOL,
    USER,
    Bench,
    Server,
    event,
    limit,
)
from tests.lua.model import Model

SUBJECTS = (USER, MEMBER, OTHER_MEMBER, POOL)
TYPES = ("calls", "tokens")
STARTS, ENDS = NOON_MS - 10 * DAY_MS, NOON_MS + 1000 * DAY_MS

T = TypeVar("T")

limits = st.builds(
    limit,
    enforcement=st.sampled_from("hhhswxn"),
    most=st.one_of(st.none(), st.integers(0, 15)),
    # Rates that divide their window, so that costs are whole microseconds.
    rate=st.sampled_from([0, 0, 0, 2, 5]),
    window_s=st.sampled_from([10, 60]),
    used=st.sampled_from([0, 0, 0, 3, MAX_UNITS - 8]),
)
events = st.builds(
    lambda at, **said: (at, said),
    st.sampled_from([None, None, None, 0, -35 * DAY_MS, -35 * DAY_MS - 1, 300_000, 300_001]),
    units=st.integers(1, 6),
    who=st.sampled_from([USER, MEMBER, OTHER_MEMBER]),
    key=st.sampled_from([None, "a", "b", "c"]),
    body=st.sampled_from([b"samebody", b"samebody", b"samebody", b"another!"]),
    usage_type=st.sampled_from(["calls", "calls", "calls", "tokens", "unheard"]),
    looked_up=st.sampled_from(LookedUp),
)
steps_us = st.sampled_from(
    [1, 999, 1_999_999, 2_000_000, 5_000_000, 12_000_000]
    + [hours * 3_600_000_000 for hours in (1, 11, 12, 13, 24)]
)


class RecordMachine(RuleBasedStateMachine):
    """`start` is set by the test: an empty server, and the includes it needs replaced."""

    loop: asyncio.Runner
    start: Callable[[], Awaitable[tuple[Server, dict[str, str]]]]

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.loop.run(awaited())

    @initialize(
        rules=st.lists(limits, min_size=8, max_size=8),
        bumped=st.sampled_from([0, 0, NOON_MS - DAY_MS + 60_000]),
    )
    def begin(self, rules: list[Limit], bumped: int) -> None:
        server, includes = self.run(type(self).start())
        self.bench = Bench(server, NOON_MS * 1000, includes)
        self.model = Model(NOON_MS * 1000, STARTS, ENDS, bumped)
        self.version = 1
        self.allowed: dict[tuple[bytes, str], Limit] = {}
        self.run(self.bench.vouch())
        self.run(self.bench.hset(self.bench.meta_key, bumped_at=bumped))
        names = [(subject, name) for subject in SUBJECTS for name in TYPES]
        for (subject, name), one in zip(names, rules, strict=True):
            self.allowed[subject, name] = Limit(
                name, one.enforcement, one.limit, one.rate_limit, one.rate_window_us, one.used
            )
        for subject in SUBJECTS:
            self._load(subject, "0-0")
            self.model.load(subject, *self._limits(subject))

    def _limits(self, subject: bytes) -> list[Limit]:
        return [self.allowed[subject, name] for name in TYPES]

    def _load(self, subject: bytes, through: str) -> None:
        outcome = self.run(
            self.bench.load(
                subject, *self._limits(subject), version=self.version, starts=STARTS, ends=ENDS,
                cursor=through, through=through,
            )
        )  # fmt: skip
        assert outcome is LoadOutcome.LOADED

    @rule(
        drawn=st.lists(events, min_size=1, max_size=5),
        enforce=st.sampled_from([True, True, True, False]),
        cap=st.sampled_from([10_000, 10_000, 4]),
    )
    def record(
        self, drawn: list[tuple[int | None, dict[str, object]]], enforce: bool, cap: int
    ) -> None:
        said: list[Event] = [
            event(occurred_at=None if at is None else self.model.now_ms + at, **more)  # type: ignore[arg-type]
            for at, more in drawn
        ]
        expected = self.model.record(said, enforce=enforce, cap=cap)
        recorded = self.run(self.bench.record(*said, enforce=enforce, cap=cap))
        assert recorded.answers == expected
        assert recorded.now == self.model.now_ms

    @rule(us=steps_us)
    def time_passes(self, us: int) -> None:
        self.run(self.bench.move(us))
        self.model.now_us += us

    @rule(subject=st.sampled_from(SUBJECTS))
    def the_plan_changes_and_the_tail_is_added_again(self, subject: bytes) -> None:
        self.version += 1
        self._load(subject, "0-0")

    @precondition(lambda self: self.model.entries)
    @rule(data=st.data())
    def some_is_drained(self, data: st.DataObject) -> None:
        low, high = self.model.drained, len(self.model.entries)
        self.model.drained = data.draw(st.integers(low, high))
        replid = self.run(self.bench.meta())["replid"]
        self.run(
            self.bench.scripts.trim(
                PARTITION, replid=replid, drained=self.model.drained, through=""
            )
        )

    @invariant()
    def counts_and_windows_are_the_models(self) -> None:
        if not hasattr(self, "model"):
            return
        for subject in SUBJECTS:
            fields = self.run(self.bench.hash(self.bench.quota_key(subject)))
            for name in TYPES:
                counter = self.model.counters[subject, name]
                assert int(fields.get(f"used:{name}", b"0")) == counter.used
                assert int(fields.get(f"tat:{name}", b"0")) == counter.tat_us

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        appended = [fields for _, fields in self.run(self.bench.entries())]
        assert [
            (fields["id"], int(fields["quota"].split()[0]), int(fields["quota"].split()[4]))
            for fields in appended
        ] == [(one.usage_id, one.units, used) for one, used in self.model.entries]
        assert int(self.run(self.bench.meta())["appended"]) == len(appended)
