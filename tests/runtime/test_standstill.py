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


@pytest.mark.parametrize("moved", [Mark(13, 12, 12), Mark(12, 13, 12), Mark(12, 12, 13)])
def test_any_movement_ends_a_standstill(moved: Mark) -> None:
    movement = Movement(100.0)
    movement.note(mark(12), AT_END, "", 100.0)
    assert movement.note(mark(12), AT_END, "", 200.0) is not None
    assert movement.note(moved, AT_END, "", 201.0) is None
    assert movement.note(moved, AT_END, "", 201.0 + STANDSTILL_S) is not None


def test_standstill_begins_again_with_another_cause() -> None:
    movement = Movement(100.0)
    movement.note(mark(12), "no broker leads the partition", "", 100.0)
    assert movement.note(mark(12), "no broker leads the partition", "", 200.0) is not None
    assert movement.note(mark(12), AT_END, "", 201.0) is None
