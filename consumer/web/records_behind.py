"""The records behind a conversation, as far as this worker's recent activity knows them. Pure.

The page does not read the input topic: a replay of a partition takes minutes of the loop's time that the lanes need.
`inspect --why` does it in a process of its own, and the page names the command.
"""

import shlex
from collections.abc import Iterable, Sequence

from msgspec import Struct

from consumer.query.parts import Operation
from consumer.query.recent_activity import RecentLetter
from schemas.transition import Transition


class RecordBehind(Struct, frozen=True):
    """An input record that changed the conversation."""

    offset: int
    committed_ms: int
    """When its changes were published."""
    operations: list[Transition]
    """In the order in which they were published."""


def group_by_record(operations: Iterable[Operation]) -> list[RecordBehind]:
    """The records of operations that are given the latest first, in the same order."""
    records: dict[int, RecordBehind] = {}
    for operation in operations:
        offset = operation.transition.source.offset
        record = records.setdefault(offset, RecordBehind(offset, operation.committed_ms, []))
        record.operations.insert(0, operation.transition)
    return list(records.values())


def group_refused(letters: Sequence[RecentLetter]) -> dict[str, list[int]]:
    """The offsets of dead letters by reason, in order, of letters that are given the latest first."""
    refused: dict[str, list[int]] = {}
    for letter in reversed(letters):
        if letter.offset.isdecimal():
            refused.setdefault(letter.reason, []).append(int(letter.offset))
    return refused


def inspect_command(conversation_id: str) -> str:
    """The command that reads all records of a conversation, for a shell."""
    return f"conversation-consumer inspect {shlex.quote(conversation_id)} --why"
