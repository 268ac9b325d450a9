"""Drives the record script and its model through the same history and compares them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger.domain.quantity import MAX_UNITS
from lua.types import Fenced, Limit, LoadOutcome, LookedUp
from tests.lua.kit import (
    DAY_MS,
    HOUR_MS,
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
from tests.lua.model import Entry, Model, Receipt

SUBJECTS = (USER, MEMBER, OTHER_MEMBER, POOL)
TYPES = ("calls", "tokens")
OTHER = 11
STARTS, ENDS = NOON_MS - 10 * DAY_MS, NOON_MS + 1000 * DAY_MS

T = TypeVar("T")

limits = st.builds(
    limit,
    enforcement=st.sampled_from("hhhswxn"),
    most=st.one_of(st.none(), st.integers(0, 15)),
    rate=st.sampled_from([0, 0, 0, 2, 5, 7]),
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
    partition=st.sampled_from([PARTITION, PARTITION, OTHER]),
)
steps_us = st.sampled_from(
    [1, 999, 1_999_999, 2_000_000, 5_000_000, 12_000_000]
    + [hours * 3_600_000_000 for hours in (1, 11, 12, 13, 24)]
)
# How long terms are good: mostly as long as the period.
lasts = st.sampled_from([None, None, None, None, 1, 5_000, 11 * HOUR_MS])


async def together(work: Iterable[Awaitable[T]]) -> list[T]:
    return list(await asyncio.gather(*work))


class RecordMachine(RuleBasedStateMachine):
    """`start` is set by the test: an empty server. Two partitions share every call; each has a
    model of its own that knows nothing of the other but the receipts that a call makes."""

    loop: asyncio.Runner
    start: Callable[[], Awaitable[Server]]

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.loop.run(awaited())

    @initialize(
        rules=st.lists(limits, min_size=8, max_size=8),
        bumped=st.sampled_from([0, 0, NOON_MS - DAY_MS + 60_000]),
        lasts_ms=st.lists(lasts, min_size=4, max_size=4),
    )
    def begin(self, rules: list[Limit], bumped: int, lasts_ms: list[int | None]) -> None:
        server = self.run(type(self).start())
        self.version = 1
        self.benches: dict[int, Bench] = {}
        self.models: dict[int, Model] = {}
        self.floors = {PARTITION: "0-0", OTHER: "0-0"}
        self.allowed: dict[tuple[int, bytes, str], Limit] = {}
        for partition in (PARTITION, OTHER):
            bench = Bench(server, NOON_MS * 1000, partition)
            # The other one lost nothing, and its rules are the same the other way round.
            bumped_at = bumped if partition == PARTITION else 0
            model = Model(NOON_MS * 1000, STARTS, ENDS, bumped_at)
            self.benches[partition], self.models[partition] = bench, model
            self.run(bench.vouch())
            self.run(bench.hset(bench.meta_key, bumped_at=bumped_at))
            names = [(subject, name) for subject in SUBJECTS for name in TYPES]
            for (subject, name), one in zip(names, rules, strict=True):
                self.allowed[partition, subject, name] = Limit(
                    name, one.enforcement, one.limit, one.rate_limit, one.rate_window_us, one.used
                )
            for subject, lasting in zip(SUBJECTS, lasts_ms, strict=True):
                model.good_until[subject] = ENDS if lasting is None else NOON_MS + lasting
            for subject in SUBJECTS:
                model.load(subject, *self._limits(partition, subject))
            loads = [self._load(partition, one, model.good_until[one]) for one in SUBJECTS]
            assert self.run(together(loads)) == [LoadOutcome.LOADED] * len(SUBJECTS)
            rules = rules[::-1]

    def _limits(self, partition: int, subject: bytes) -> list[Limit]:
        return [self.allowed[partition, subject, name] for name in TYPES]

    def _load(
        self, partition: int, subject: bytes, good_until: int = ENDS
    ) -> Awaitable[LoadOutcome]:
        """From a ledger that has the entries which are gone and none of the others."""
        model, floor = self.models[partition], self.floors[partition]
        limits = [
            msgspec.structs.replace(one, used=model.counted(subject, one.usage_type, model.trimmed))
            for one in self._limits(partition, subject)
        ]
        return self.benches[partition].load(
            subject, *limits, version=self.version, epoch=model.epoch, starts=model.starts,
            ends=ENDS, good_until=good_until, cursor=floor, through=floor,
        )  # fmt: skip

    @rule(
        drawn=st.lists(events, min_size=1, max_size=5),
        enforce=st.sampled_from([True, True, True, False]),
        cap=st.sampled_from([10_000, 10_000, 4]),
    )
    def record(
        self, drawn: list[tuple[int | None, dict[str, Any]]], enforce: bool, cap: int
    ) -> None:
        now_ms = self.models[PARTITION].now_ms
        said = [
            event(occurred_at=None if at is None else now_ms + at, **more) for at, more in drawn
        ]
        before = {partition: len(model.entries) for partition, model in self.models.items()}
        made: dict[bytes, Receipt] = {}
        expected = [
            self.models[one.partition].record(one, enforce=enforce, cap=cap, made=made)
            for one in said
        ]
        scripts = self.benches[PARTITION].scripts
        recorded = self.run(scripts.record(said, enforce=enforce, cap=cap))
        for at, (answer, should) in enumerate(zip(recorded.answers, expected, strict=True)):
            assert answer == should, f"event {at}: {answer}, not {should}"
        grown = {
            partition: self.run(self.benches[partition].entries())[-1][0]
            for partition, model in self.models.items()
            if len(model.entries) > before[partition]
        }
        assert recorded.last_ids == grown

    @rule(us=steps_us)
    def time_passes(self, us: int) -> None:
        for partition in self.models:
            self.run(self.benches[partition].move(us))
            self.models[partition].now_us += us

    @rule()
    def the_other_partition_is_fenced_or_vouched_for_again(self) -> None:
        bench, model = self.benches[OTHER], self.models[OTHER]
        model.fenced = not model.fenced
        replid = self.run(self.benches[PARTITION].meta())["replid"]
        self.run(bench.hset(bench.meta_key, replid="f" * 40 if model.fenced else replid))

    @rule(
        partition=st.sampled_from([PARTITION, OTHER]),
        subject=st.sampled_from(SUBJECTS),
        lasts_ms=lasts,
    )
    def the_plan_changes_and_the_tail_is_added_again(
        self, partition: int, subject: bytes, lasts_ms: int | None
    ) -> None:
        self.version += 1
        model = self.models[partition]
        good_until = ENDS if lasts_ms is None else model.now_ms + lasts_ms
        outcome = self.run(self._load(partition, subject, good_until))
        assert outcome is (LoadOutcome.FENCED if model.fenced else LoadOutcome.LOADED)
        if not model.fenced:
            model.load_again(subject, good_until)

    @rule(partition=st.sampled_from([PARTITION, OTHER]), subject=st.sampled_from(SUBJECTS))
    def terms_end_and_what_was_read_before_is_refused(self, partition: int, subject: bytes) -> None:
        scripts, model = self.benches[partition].scripts, self.models[partition]
        before, self.version = self.version, self.version + 1
        ends = scripts.supersede(partition, {subject: self.version}, control=b"terms")
        if model.fenced:
            with pytest.raises(Fenced):
                self.run(ends)
            return
        assert self.run(ends) is not None
        model.supersede(subject)
        self.version = before
        assert self.run(self._load(partition, subject)) is LoadOutcome.RETRY
        self.version += 1

    @precondition(lambda self: any(model.entries for model in self.models.values()))
    @rule(partition=st.sampled_from([PARTITION, OTHER]), data=st.data(), removes=st.booleans())
    def some_is_drained_and_some_of_that_removed(
        self, partition: int, data: st.DataObject, removes: bool
    ) -> None:
        bench, model = self.benches[partition], self.models[partition]
        drained = data.draw(st.integers(model.drained, len(model.entries)))
        removed = data.draw(st.integers(model.trimmed, drained)) if removes else model.trimmed
        through = ""
        if removed > model.trimmed:
            through = self.run(bench.entries())[removed - model.trimmed - 1][0]
        replid = self.run(bench.meta())["replid"]
        trimmed = self.run(
            bench.scripts.trim(partition, replid=replid, drained=drained, through=through)
        )
        if model.fenced:
            assert trimmed == -1
        else:
            assert trimmed == removed - model.trimmed
            model.drained, model.trimmed = drained, removed
            self.floors[partition] = through or self.floors[partition]

    @invariant()
    def counts_and_windows_are_the_models(self) -> None:
        if not hasattr(self, "models"):
            return
        places = [(partition, subject) for partition in self.models for subject in SUBJECTS]
        reads = [
            bench.hash(bench.quota_key(subject))
            for partition, subject in places
            for bench in [self.benches[partition]]
        ]
        found = self.run(together(reads))
        for (partition, subject), fields in zip(places, found, strict=True):
            for name in TYPES:
                counter = self.models[partition].counters[subject, name]
                assert [
                    int(fields.get(f"{field}:{name}", b"0"))
                    for field in ("used", "spent", "spent_at")
                ] == [counter.used, counter.spent, counter.spent_at]

    @invariant()
    def what_waits_is_what_was_recorded_and_not_drained(self) -> None:
        for partition, model in getattr(self, "models", {}).items():
            standing = self.run(self.benches[partition].standing())
            assert standing.undrained == len(model.entries) - model.drained

    def teardown(self) -> None:
        if not hasattr(self, "models"):
            return
        for partition, model in self.models.items():
            bench = self.benches[partition]
            appended = [_in_stream(fields) for _, fields in self.run(bench.entries())]
            assert appended == [_in_model(one) for one in model.entries[model.trimmed :]]


def _in_stream(fields: dict[str, bytes]) -> tuple[bytes, list[int]] | None:
    if "quota" not in fields:
        return None
    units, _, *found = [-1 if one == b"-" else int(one) for one in fields["quota"].split()]
    return fields["id"], [units, *found[:4]]


def _in_model(one: Entry) -> tuple[bytes, list[int]] | None:
    if one.event is None:
        return None
    found = [one.event.units, one.starts, one.pool_starts, one.used, one.pool_used]
    return one.event.usage_id, found
