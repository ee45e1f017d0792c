"""Conclude from a conversation's state and its records what keeps it live, or what ended it. Pure.

A conclusion is a list of sentences. It judges nothing that the state and the records do not show.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct, field

from consumer.core import timestamps
from consumer.core.reasons import Reason
from consumer.tools.explain import Explanation
from schemas.query import CommunicationView
from schemas.state import ConversationState

_SHOWN_MAX = 5
"""Live communications that are named; the others are counted."""

Identity = tuple[str, str, str | None]
"""Participant, media and communication id."""

_REDRIVE: Final = "Fix what wrote them, and put them back: `dead-letters redrive --key {id}`."
_REMEDIES: Final[dict[str, str]] = {
    "too_large": "Raise the limit that they exceed (`dead-letters show --key {id}`), and put them back: `dead-letters "
    "redrive --key {id}`.",
    "key_mismatch": "Fix the producer's keys, and copy the topic under the right ones with `rekey`.",
    "late": "The conversation was over and evicted before they came.",
    "internal_error": "Report them; a version without the bug can take them from `dead-letters redrive --key {id}`.",
}
"""By reason of a dead letter; `_REDRIVE` for all others."""


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
        *_conclude_from_state(state, views, now_ms, Evidence() if evidence is None else evidence),
        *([] if evidence is None else _conclude_from_records(conversation_id, evidence)),
        *([waiting] if is_undecided else []),
    ]


def _conclude_from_state(
    state: ConversationState | None, views: Sequence[CommunicationView], now_ms: int, evidence: Evidence
) -> Iterator[str]:
    if state is None:
        yield "There is no state of it: no record of it was applied, or it was evicted."
        return
    live = [view for view in views if view.live]
    for view in live[:_SHOWN_MAX]:
        yield (
            f"Live: {_name(view)} is {view.state} since {view.state_time}, for {_age(view.state_time, now_ms)}"
            f"{_shown_by(view, evidence)}; no record ends it."
        )
    if len(live) > _SHOWN_MAX:
        yield f"{len(live) - _SHOWN_MAX} more communications are live."
    if views and not live:
        last = max(views, key=lambda view: view.state_time)
        by = f" ({last.disconnect_type})" if last.disconnect_type else ""
        yield (
            f"Over: the last of {len(views)} communications to end, {_name(last)}, is {last.state}{by} since "
            f"{last.state_time}, for {_age(last.state_time, now_ms)}{_shown_by(last, evidence)}."
        )
    if not views:
        yield "No communication of it was seen."
    yield (
        f"The newest snapshot is of {state.snapshot_time}, {_age(state.snapshot_time, now_ms)} ago; the record at "
        f"offset {state.source.offset} changed the state last."
    )


def _conclude_from_records(conversation_id: str, evidence: Evidence) -> Iterator[str]:
    if not evidence.records:
        yield "The input has no record of it."
    if evidence.waiting:
        yield f"{evidence.waiting} of its {evidence.records} records are not consumed yet: look at the worker's lag."
    for reason, offsets in evidence.refused.items():
        remedy = _REMEDIES.get(reason, _REDRIVE).format(id=conversation_id)
        yield f"Refused as {reason}: {len(offsets)} of its records, the last at offset {offsets[-1]}. {remedy}"


def _name(view: CommunicationView) -> str:
    owner = f" of the {view.purpose}" if view.purpose else f" of participant {view.participant_id}"
    return f"{view.media} {view.communication_id or 'without an id'}{owner}"


def _shown_by(view: CommunicationView, evidence: Evidence) -> str:
    identity = (view.participant_id, view.media, view.communication_id)
    explanation = evidence.entries.get((identity, view.state, view.state_time))
    if explanation is None:
        return ""
    arrived = f", which arrived {explanation.timestamp}" if explanation.timestamp else ""
    return f" (by the record at offset {explanation.offset}{arrived})"


def _age(time: str, now_ms: int) -> str:
    """How long ago a published time was, in its two largest units, such as `3d 4h`; a time to come is `0s` ago."""
    then_ms = timestamps.parse(time)
    seconds = 0 if then_ms is None else max(0, (now_ms - then_ms) // 1_000)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
