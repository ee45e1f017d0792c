"""Is it well? What the live page concludes from an overview."""

import pytest

from consumer.query.fleet import FleetOverview
from consumer.query.trends import SAMPLES_MAX, SLOT_MS, Sample
from consumer.web.health import Health, judge
from schemas.query import DeadLetterCount, LaneView, Overview

NOW_SLOT = 1_000


def lane(partition: int, phase: str = "running", lag: int | None = 0, problem: str | None = None) -> LaneView:
    return LaneView(
        partition=partition, worker=None, phase=phase, conversations=1,
        lag_records=lag, restore_records=0, problem=problem,
    )  # fmt: skip


def health(*lanes: LaneView, trend: list[Sample] | None = None, dead: int = 0, is_cut_off: bool = False) -> Health:
    overview = Overview(
        partitions=[one.partition for one in lanes], complete=True, missing=[], live=[], lanes=list(lanes),
        transitions=[], dead_letters=[DeadLetterCount("late", dead)] if dead else [],
    )  # fmt: skip
    return judge(FleetOverview(overview, [], [], trend or [], 1), NOW_SLOT * SLOT_MS, is_cut_off=is_cut_off)


def values(found: Health) -> list[tuple[str, str]]:
    return [(card.value, card.style) for card in found.cards]


def test_all_is_well() -> None:
    found = health(lane(0), lane(1), dead=3, trend=[Sample(NOW_SLOT - 24), Sample(NOW_SLOT, corrections=2)])
    assert (found.problems, found.warnings, found.troubled) == ([], [], [])
    assert values(found) == [("up to date", ""), ("0", ""), ("3", ""), ("2", "")]
    assert found.cards[2].note == "since the workers started, 0 in the last 2 min"


def test_records_that_wait_for_long_are_a_problem() -> None:
    for delay_ms, style in ((59_999, ""), (60_000, "bad")):
        found = health(lane(0, lag=1_200), lane(1, lag=None), trend=[Sample(NOW_SLOT, 1_200, delay_ms)])
        assert values(found)[:2] == [(f"{'60.0 s' if not style else '1 min 0 s'} behind", style), ("1,200", "")]
        assert bool(found.problems) == bool(style)


def test_partitions_that_are_not_read_are_a_problem() -> None:
    lanes = lane(0), lane(1, "opening"), lane(2, problem="no broker leads the partition")
    found = health(*lanes)
    assert found.problems == ["Not read: 2 of 3 partitions, listed below."]
    assert found.troubled == list(lanes[1:])


def test_new_dead_letters_are_a_warning() -> None:
    found = health(lane(0), dead=9, trend=[Sample(NOW_SLOT, dead_letters=1)])
    assert found.warnings == ["1 record could not be used in the last minute: see the dead letters."]
    assert values(found)[2] == ("9", "warn")


def test_nothing_is_claimed_while_kafka_does_not_answer() -> None:
    found = health(lane(0), is_cut_off=True)
    assert found.problems == ["Kafka does not answer this worker: what you see is from before."]
    assert values(found)[:2] == [("cut off", "bad"), ("unknown", "")]
    assert values(health(lane(0, lag=None)))[:2] == [("unknown", ""), ("unknown", "")]


@pytest.mark.parametrize(
    ("slots", "path"),
    [
        ([], ""),
        ([0], "M119 1 h0.01"),
        ([1, 0], "M118 15 L119 1 h0.01"),
        ([3, 1, 0], "M116 15 M118 15 L119 1 h0.01"),
        ([SAMPLES_MAX, 0], "M119 1 h0.01"),
    ],
)
def test_a_line_is_interrupted_where_samples_are_missing(slots: list[int], path: str) -> None:
    """The last slot has ten, the others five."""
    trend = [Sample(NOW_SLOT - slot, corrections=5 if slot else 10) for slot in slots]
    chart = health(trend=trend).cards[3].chart
    assert chart.path == path
    assert chart.label == ("Most corrections in 5 s: 10; at the end 10." if slots else "No history yet.")
