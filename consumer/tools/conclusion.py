"""Conclude from a conversation's state and its records what keeps it live, or what ended it. Pure.

A conclusion is a list of sentences. It judges nothing that the state and the records do not show.
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct, field

from consumer.core.reasons import Reason
from consumer.query.conclusion import Identity, conclude_from_refused, conclude_from_state
from consumer.tools.explain import Explanation
from schemas.query import CommunicationView
from schemas.state import ConversationState


class Evidence(Struct):
    """What the records of a conversation tell beside its state. They are added in order of offset."""

    records: int = 0
    waiting: int = 0
    """Records that the group has not consumed."""
    refused: dict[Reason, list[int]] = field(default_factory=dict)
    """The offsets of its records that became dead letters, by reason."""
    entries: dict[tuple[Identity, str, str], Explanation] = field(default_factory=dict)
    """The record that showed an entry into a state first, by communication, state and event time."""

    def add(self, explanation: Explanation, *, is_consumed: bool) -> None:
        """Add one record."""
        self.records += 1
        self.waiting += not is_consumed
        if explanation.disposition == "dead_lettered":
            self.refused.setdefault(explanation.reason, []).append(explanation.offset)
        for transition in explanation.transitions:
            if transition.op == "assert":
                identity = (transition.participant_id, transition.media, transition.communication_id)
                self.entries.setdefault((identity, transition.to_state, transition.event_time), explanation)


def conclude(
    conversation_id: str,
    state: ConversationState | None,
    views: Sequence[CommunicationView],
    now_ms: int,
    evidence: Evidence | None = None,
    *,
    is_undecided: bool = False,
) -> list[str]:
    """The conclusion at a time.

    `state` is the published one, None if there is none, and `views` all its communications. `evidence` are its records,
    None if they were not read. `is_undecided` says whether records of its partition wait for the end of a transaction.
    """
    waiting = "There may be more of it: records of its partition wait for the end of an open transaction."
    return [
        *conclude_from_state(state, views, now_ms, {} if evidence is None else evidence.entries),
        *([] if evidence is None else _conclude_from_records(conversation_id, evidence)),
        *([waiting] if is_undecided else []),
    ]


def _conclude_from_records(conversation_id: str, evidence: Evidence) -> Iterator[str]:
    if not evidence.records:
        yield "The input has no record of it."
    if evidence.waiting:
        yield f"{evidence.waiting} of its {evidence.records} records are not consumed yet: look at the worker's lag."
    yield from conclude_from_refused(conversation_id, evidence.refused.items())
