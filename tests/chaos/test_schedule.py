"""The schedule of faults is decided by its seed alone."""

from __future__ import annotations

from itertools import islice

import pytest

from chaos import network
from chaos.faults import Faults
from chaos.schedule import FAULTS_PER_EPISODE, KINDS, LINKS, Episode, chosen, deal, episodes


def some(seed: int, count: int = 40) -> list[Episode]:
    return list(islice(episodes(seed), count))


def test_the_same_seed_is_the_same_schedule_and_another_is_not() -> None:
    assert some(7) == some(7)
    assert some(7) != some(8)


def test_an_episode_is_the_same_whichever_is_played_first() -> None:
    assert next(islice(episodes(7), 11, None)) == some(7)[11]


@pytest.mark.parametrize("seed", range(5))
def test_every_kind_of_fault_comes_in_four_episodes_and_every_target_of_it_in_time(
    seed: int,
) -> None:
    assert len(deal()) <= 4 * FAULTS_PER_EPISODE
    assert {one.kind for episode in some(seed, 4) for one in episode.faults} == KINDS.keys()
    rounds = -(-len(deal()) * max(map(len, KINDS.values())) // FAULTS_PER_EPISODE)
    all_of_it = {(one.kind, one.target) for episode in some(seed, rounds) for one in episode.faults}
    assert all_of_it == {(kind, target) for kind, targets in KINDS.items() for target in targets}


def test_only_the_kinds_asked_for_come() -> None:
    kinds = chosen(["kill:redis", "kill:worker", "cut"])
    seen = {str(one) for episode in islice(episodes(1, kinds), 10) for one in episode.faults}
    assert seen == {"kill:redis", "kill:worker", *(f"cut:{link}" for link in LINKS)}


@pytest.mark.parametrize("name", ["earthquake", "kill:earthquake", "flushall:postgres"])
def test_a_fault_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        chosen(["kill", name])


def test_faults_begin_in_order_and_some_overlap() -> None:
    overlaps = 0
    for episode in some(1):
        for before, after in zip(episode.faults, episode.faults[1:], strict=False):
            assert before.at_ms < after.at_ms
            overlaps += after.at_ms < before.at_ms + before.hold_ms
    assert overlaps


def test_every_kind_has_its_method_or_is_one_of_the_network() -> None:
    methods = {name.removeprefix("_") for name in vars(Faults)}
    of_links = {kind for kind, targets in KINDS.items() if targets == LINKS}
    assert network.FAULTS.keys() == of_links
    assert methods >= KINDS.keys() - of_links
