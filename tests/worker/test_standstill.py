"""When a partition stands still, and why."""

import pytest

from consumer.worker.standstill import STANDSTILL_S, LogEnd, Mark, Movement

AT_END = LogEnd(20, 20)
OPEN = LogEnd(23, 20, open_since_ms=1)
"""An open transaction holds back three records."""


def mark(position: int | None) -> Mark:
    return Mark(position, position, position)


@pytest.mark.parametrize(
    ("position", "end", "problem", "cause", "message"),
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
def test_lasting_obstacle_is_a_standstill(
    position: int | None, end: LogEnd | str, problem: str, cause: str, message: str
) -> None:
    movement = Movement(100.0)
    assert movement.note(mark(position), end, problem, 105.0) is None
    assert movement.note(mark(position), end, problem, 105.0 + STANDSTILL_S - 0.1) is None
    standstill = movement.note(mark(position), end, problem, 105.0 + STANDSTILL_S)
    assert standstill is not None
    assert (standstill.cause, standstill.message, standstill.since_s) == (cause, message, 105.0)


@pytest.mark.parametrize(("position", "end"), [(20, AT_END), (25, AT_END), (23, OPEN)])
def test_partition_with_nothing_to_read_does_not_stand_still(position: int, end: LogEnd) -> None:
    movement = Movement(100.0)
    assert [movement.note(mark(position), end, "", 100.0 + 10 * look) for look in range(5)] == [None] * 5


@pytest.mark.parametrize("moved", [Mark(13, 12, 12), Mark(12, 13, 12), Mark(12, 12, 13), Mark(5, 5, 5)])
def test_any_movement_ends_a_standstill(moved: Mark) -> None:
    movement = Movement(100.0)
    movement.note(mark(12), AT_END, "", 100.0)
    assert movement.note(mark(12), AT_END, "", 200.0) is not None
    assert movement.note(moved, AT_END, "", 201.0) is None
    assert movement.note(moved, AT_END, "", 201.0 + STANDSTILL_S) is not None


def test_lane_that_rereads_the_same_records_stands_still() -> None:
    """It opens, reads to the end, cannot commit and opens again."""
    movement = Movement(100.0)
    cycle = [(Mark(20, 20, 12), ""), (Mark(12, 12, 12), "committing: TimeoutError")]
    standstills = [
        movement.note(*cycle[look % 2][:1], AT_END, cycle[look % 2][1], 100.0 + 4 * look) for look in range(5)
    ]
    assert [standstill is not None for standstill in standstills] == [False, False, False, True, True]
    assert standstills[3] is not None
    assert standstills[3].message == "8 records wait and none is read: committing: TimeoutError"
    assert standstills[4] is not None
    assert standstills[4].message == "8 records are read and not committed"


def test_standstill_ends_when_there_is_nothing_to_read() -> None:
    movement = Movement(100.0)
    movement.note(mark(20), "no broker leads the partition", "", 100.0)
    assert movement.note(mark(20), "no broker leads the partition", "", 200.0) is not None
    assert movement.note(mark(20), AT_END, "", 201.0) is None
    assert movement.note(mark(20), "no broker leads the partition", "", 205.0) is None


def test_passed_markers_do_not_count_as_uncommitted_records() -> None:
    movement = Movement(100.0)
    assert [movement.note(Mark(20, 12, 12), AT_END, "", 100.0 + 10 * look) for look in range(5)] == [None] * 5
