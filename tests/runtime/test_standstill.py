"""When a partition stands still, and why."""

import pytest

from consumer.runtime.standstill import STANDSTILL_S, LogEnd, Mark, Movement

AT_END = LogEnd(20, 20)
OPEN = LogEnd(23, 20, open_since_ms=1)
"""Three records wait behind a transaction."""


def mark(position: int | None) -> Mark:
    return Mark(position, position, position)


@pytest.mark.parametrize(
    ("position", "end", "problem", "cause", "found"),
    [
        (20, "no broker leads the partition", "", "leader", "no broker leads the partition"),
        (None, "no broker leads the partition", "", "leader", "no broker leads the partition"),
        (20, OPEN, "", "open_transaction", "3 records wait for the end of a transaction"),
        (21, OPEN, "", "open_transaction", "2 records wait for the end of a transaction"),
        (None, AT_END, "", "unread", "the lane is not open yet"),
        (None, AT_END, "no answer", "unread", "the lane is not open yet: no answer"),
        (12, AT_END, "", "unread", "8 records wait and none is read"),
        (12, OPEN, "the breaker is open", "unread", "8 records wait and none is read: the breaker is open"),
    ],
)
def test_obstacle_that_lasts_is_a_standstill(
    position: int | None, end: LogEnd | str, problem: str, cause: str, found: str
) -> None:
    movement = Movement(100.0)
    assert movement.note(mark(position), end, problem, 105.0) is None
    assert movement.note(mark(position), end, problem, 105.0 + STANDSTILL_S - 0.1) is None
    seen = movement.note(mark(position), end, problem, 105.0 + STANDSTILL_S)
    assert seen is not None
    assert (seen.cause, seen.found, seen.since_s) == (cause, found, 105.0)


@pytest.mark.parametrize(("position", "end"), [(20, AT_END), (25, AT_END), (23, OPEN)])
def test_partition_without_anything_to_read_moves(position: int, end: LogEnd) -> None:
    movement = Movement(100.0)
    assert [movement.note(mark(position), end, "", 100.0 + 10 * look) for look in range(5)] == [None] * 5


@pytest.mark.parametrize("moved", [Mark(13, 12, 12), Mark(12, 13, 12), Mark(12, 12, 13), Mark(5, 5, 5)])
def test_any_movement_ends_a_standstill(moved: Mark) -> None:
    movement = Movement(100.0)
    movement.note(mark(12), AT_END, "", 100.0)
    assert movement.note(mark(12), AT_END, "", 200.0) is not None
    assert movement.note(moved, AT_END, "", 201.0) is None
    assert movement.note(moved, AT_END, "", 201.0 + STANDSTILL_S) is not None


def test_lane_that_reads_the_same_over_and_over_stands_still() -> None:
    """It opens, reads to the end, cannot commit and opens again."""
    movement = Movement(100.0)
    cycle = [(Mark(20, 20, 12), ""), (Mark(12, 12, 12), "committing: TimeoutError")]
    seen = [movement.note(*cycle[look % 2][:1], AT_END, cycle[look % 2][1], 100.0 + 4 * look) for look in range(5)]
    assert [standstill is not None for standstill in seen] == [False, False, False, True, True]
    assert seen[3] is not None
    assert seen[3].found == "8 records wait and none is read: committing: TimeoutError"
    assert seen[4] is not None
    assert seen[4].found == "8 records are read and not committed"


def test_standstill_ends_when_there_is_nothing_to_read() -> None:
    movement = Movement(100.0)
    movement.note(mark(20), "no broker leads the partition", "", 100.0)
    assert movement.note(mark(20), "no broker leads the partition", "", 200.0) is not None
    assert movement.note(mark(20), AT_END, "", 201.0) is None
    assert movement.note(mark(20), "no broker leads the partition", "", 205.0) is None


def test_markers_that_are_passed_and_not_yet_committed_are_no_records() -> None:
    movement = Movement(100.0)
    assert [movement.note(Mark(20, 12, 12), AT_END, "", 100.0 + 10 * look) for look in range(5)] == [None] * 5
