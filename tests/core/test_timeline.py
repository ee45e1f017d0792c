"""Merging observations into a timeline, and folding it."""

import itertools

import pytest

from consumer.core.lifecycle import RANKS
from consumer.core.timeline import fold, merge
from schemas.state import Observation, TimeClass
from tests.strategies import at


def observation(state: str, seconds: float, time_class: TimeClass = "state", cycle: float | None = None) -> Observation:
    return Observation(state, RANKS[state], at(seconds), time_class, "" if cycle is None else at(cycle))


ALERTING = observation("alerting", 1)
CONNECTED = observation("connected", 5)
DISCONNECTED = observation("disconnected", 9)


def test_merge_sorts_and_ignores_repetition() -> None:
    for order in itertools.permutations([ALERTING, CONNECTED, DISCONNECTED]):
        timeline = merge([], order, at(20), 32)
        assert timeline == [ALERTING, CONNECTED, DISCONNECTED]
        assert merge(timeline, order, at(30), 32) is timeline


def test_merge_changes_no_argument() -> None:
    before = [ALERTING]
    assert merge(before, [CONNECTED], at(20), 32) == [ALERTING, CONNECTED]
    assert before == [ALERTING]


@pytest.mark.parametrize(
    ("update", "kept"),
    [
        (observation("connected", 7, "provider"), observation("connected", 7, "provider")),
        (observation("connected", 4), observation("connected", 4)),
        (observation("connected", 6), CONNECTED),
        (observation("connected", 1, "snapshot"), CONNECTED),
    ],
)
def test_the_least_class_and_time_of_a_slot_is_kept(update: Observation, kept: Observation) -> None:
    assert merge([CONNECTED], [update], at(20), 32) == [kept]
    assert merge([update], [CONNECTED], at(20), 32) == [kept]


def test_an_empty_time_is_that_of_the_snapshot() -> None:
    undated = Observation("alerting", RANKS["alerting"], "", "snapshot")
    assert merge([], [undated], at(3), 32) == [observation("alerting", 3, "snapshot")]
    assert merge([ALERTING], [undated], at(0), 32) == [ALERTING]


def test_many_observations_give_the_same_as_one_by_one() -> None:
    observations = [observation("parked", second, cycle=second) for second in range(10, 40)]
    timeline: list[Observation] = []
    for single in observations:
        timeline = merge(timeline, [single], at(50), 32)
    assert merge([], [*observations, *observations], at(50), 32) == timeline


def test_the_first_and_the_latest_park_cycles_are_kept() -> None:
    """Of the dropped ones the latest resume is kept, which is no transition."""
    observations = [
        park_or_resume
        for cycle in range(10, 60, 10)
        for park_or_resume in (
            observation("parked", cycle, cycle=cycle),
            observation("connected", cycle + 3, "snapshot", cycle),
        )
    ]
    timeline = merge([CONNECTED], observations, at(99), 3)
    assert [(kept.state, kept.time) for kept in timeline] == [
        ("connected", at(5)),
        *(("parked", at(10)), ("connected", at(13))),
        ("connected", at(33)),
        *(("parked", at(40)), ("connected", at(43)), ("parked", at(50)), ("connected", at(53))),
    ]
    entries = {entry.time: entry for entry in fold(timeline)}
    assert at(33) not in entries
    assert entries[at(40)].since == at(33)


def test_fold_lowers_snapshot_times_to_the_next_better_one() -> None:
    delayed = observation("alerting", 600, "snapshot")
    assert [(entry.to_state, entry.time, entry.time_class) for entry in fold([delayed, CONNECTED])] == [
        ("alerting", at(5), "snapshot"),
        ("connected", at(5), "state"),
    ]


def test_fold_makes_times_non_decreasing() -> None:
    early_end = observation("disconnected", 4.8)
    assert [(entry.from_state, entry.to_state, entry.time) for entry in fold([CONNECTED, early_end])] == [
        (None, "connected", at(5)),
        ("connected", "disconnected", at(5)),
    ]


def test_fold_of_nothing_is_empty() -> None:
    assert fold([]) == []
