"""What the record machine does, with corrections in between, periods that end and history lost."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from lua import keys
from lua.packing import NONE, pack_said
from lua.types import Answer, Event, Fenced, LoadOutcome, Outcome
from tests.lua.kit import MEMBER, OTHER_MEMBER, PARTITION, TERMS, USER, event
from tests.lua.machine import ENDS, OTHER, STARTS, SUBJECTS, TYPES, RecordMachine, together
from tests.lua.model import subjects_of

corrected = st.builds(
    event,
    units=st.sampled_from([-6, -3, -2, -1, 1, 2, 9]),
    who=st.sampled_from([USER, MEMBER, OTHER_MEMBER]),
    key=st.sampled_from([f"correction {number}" for number in range(8)]),
    body=st.sampled_from([b"samebody", b"samebody", b"another!"]),
    usage_type=st.sampled_from(TYPES),
    partition=st.sampled_from([PARTITION, PARTITION, OTHER]),
)
# Of the user's quota and of the pool's: mostly the period that is open.
periods = st.sampled_from(["open", "open", "open", "first", "never"])
several = st.lists(st.tuples(corrected, periods, periods), min_size=1, max_size=6)


class CorrectionMachine(RecordMachine):
    @rule(some=several, cap=st.sampled_from([10_000, 4]))
    def correct(self, some: list[tuple[Event, str, str]], cap: int) -> None:
        self.correct_all(some, cap)

    def correct_all(self, some: list[tuple[Event, str, str]], cap: int = 10_000) -> None:
        for one in some:
            self._correct(*one, cap)

    def _correct(self, one: Event, of_user: str, of_pool: str, cap: int) -> None:
        model = self.models[one.partition]
        starts = {"open": model.starts, "first": STARTS, "never": STARTS - 1}
        found = [starts[of_user], starts[of_pool]][: len(subjects_of(one))]
        expected = model.correct(one, found, cap=cap)
        assert self._sent(one, found, cap) == expected
        if expected.outcome in (Outcome.RECORDED, Outcome.REPLAYED):
            appended = [entry.event.usage_id for entry in model.entries if entry.event is not None]
            # I1: what is answered is recorded; a receipt outlives its entry nowhere.
            assert one.usage_id in appended

    def _sent(self, one: Event, starts: list[int], cap: int) -> Answer:
        user, pool = (*starts, NONE)[:2]
        said = pack_said(one.usage_id, one.fingerprint, one.usage_type, one.who, one.payload)
        try:
            return self.run(
                self.benches[one.partition].scripts.correct(
                    one.partition, one.who, keys.pool_of(one.who), cap=cap, said=said,
                    units=one.units, starts=user, pool_starts=pool, terms=TERMS, period=1,
                )
            )  # fmt: skip
        except Fenced:
            return Answer(Outcome.FENCED)

    @rule(partition=st.sampled_from([PARTITION, OTHER]))
    def a_period_ends_and_the_next_is_loaded(self, partition: int) -> None:
        model = self.models[partition]
        if model.fenced:
            return
        self.version += 1
        model.roll_over()
        loads = [self._load(partition, one) for one in SUBJECTS]
        assert self.run(together(loads)) == [LoadOutcome.LOADED] * len(SUBJECTS)
        for subject in SUBJECTS:
            model.load_again(subject, ENDS)

    @rule(
        partition=st.sampled_from([PARTITION, OTHER]),
        keeps_quotas=st.booleans(),
        again=several,
        loaded=st.sets(st.sampled_from(SUBJECTS)),
    )
    def what_is_not_drained_is_lost_and_corrections_are_sent_again(
        self,
        partition: int,
        keeps_quotas: bool,
        again: list[tuple[Event, str, str]],
        loaded: set[bytes],
    ) -> None:
        bench, model = self.benches[partition], self.models[partition]
        cursor = self.floors[partition]
        if model.drained > model.trimmed:
            cursor = self.run(bench.entries())[model.drained - model.trimmed - 1][0]
        replid = self.run(bench.meta())["replid"]
        for name in self.run(bench.keys(f"*{{p{partition:02d}}}*")):
            if not (keeps_quotas and name.startswith("quota:")):
                self.run(bench.server.run("DEL", name))
        self.run(
            bench.vouch(row_replid=replid, epoch=model.epoch, cursor=cursor, drained=model.drained)
        )
        model.lose(keeps_quotas=keeps_quotas)
        # Recovery takes the server's own time, which stands still nowhere.
        self.run(bench.hset(bench.meta_key, bumped_at=model.now_ms))
        self.floors[partition] = cursor
        self.correct_all(again)
        self.version += 1
        for subject in sorted(loaded):
            assert self.run(self._load(partition, subject)) is LoadOutcome.LOADED
            model.load_again(subject, ENDS)

    @invariant()
    def a_counter_in_use_is_the_sum_of_its_entries(self) -> None:
        """I3, with what the server holds compared by the other invariants."""
        for model in getattr(self, "models", {}).values():
            for (subject, usage_type), counter in model.counters.items():
                if model.in_force(subject):
                    assert counter.used == model.counted(subject, usage_type)
