"""The records behind a conversation, from what a worker published lately."""

import shlex

from hypothesis import given
from hypothesis import strategies as st

from consumer.query.recent_activity import RecentLetter
from consumer.web.records_behind import group_by_record, group_refused, inspect_command
from tests.query.fleets import make_operation


def test_operations_are_grouped_by_their_record() -> None:
    """The latest record first, its operations in the order in which they were published."""
    one, other = make_operation(0, 7), make_operation(0, 9)
    records = group_by_record([other, one, one])
    assert [(record.offset, record.committed_ms, len(record.operations)) for record in records] == [
        (9, 9_000, 1), (7, 7_000, 2),
    ]  # fmt: skip


def test_letters_are_grouped_by_reason() -> None:
    letters = [RecentLetter(1, "c", reason, "", "0", offset) for reason, offset in
               (("late", "9"), ("late", "7"), ("bad_json", "5"), ("late", ""))]  # fmt: skip
    assert group_refused(letters) == {"bad_json": [5], "late": [7, 9]}


@given(st.text())
def test_the_command_is_safe_in_a_shell(conversation_id: str) -> None:
    assert shlex.split(inspect_command(conversation_id)) == [
        "conversation-consumer", "inspect", conversation_id, "--why",
    ]  # fmt: skip
