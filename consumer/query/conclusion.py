"""Conclude from a conversation's state what keeps it live, or what ended it, and from its dead letters what is missing.

A conclusion is a list of sentences. It judges nothing that the state and the dead letters do not show. Pure.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from consumer.core import timestamps
from schemas.query import CommunicationView
from schemas.state import ConversationState

_SHOWN_MAX: Final = 5
"""Live communications that are named; the others are counted."""
_REDRIVE: Final = "Fix what wrote them, and put them back: `dead-letters redrive --key {id}`."
_REMEDIES: Final[Mapping[str, str]] = {
    "too_large": "Raise the limit that they exceed (`dead-letters show --key {id}`), and put them back: `dead-letters "
    "redrive --key {id}`.",
    "key_mismatch": "Fix the producer's keys, and copy the topic under the right ones with `rekey`.",
    "late": "The conversation was over and evicted before they came.",
    "internal_error": "Report them; a version without the bug can take them from `dead-letters redrive --key {id}`.",
}
"""By reason of a dead letter; `_REDRIVE` for all others."""

Identity = tuple[str, str, str | None]
"""Participant, media and communication id."""


class ShownBy(Protocol):
    """The record that showed an entry into a state."""

    @property
    def offset(self) -> int:
        """Its offset in the input."""

    @property
    def timestamp(self) -> str | None:
        """When it arrived; None if that is not known."""


Entries = Mapping[tuple[Identity, str, str], ShownBy]
"""By communication, state and event time: the record that showed this entry first."""


def conclude_from_state(
    state: ConversationState | None, views: Sequence[CommunicationView], now_ms: int, entries: Entries
) -> Iterator[str]:
    """The conclusion at a time. `state` is the published one, None if there is none; `views` all its communications."""
    if state is None:
        yield "There is no state of it: no record of it was applied, or it was evicted."
        return
    live = [view for view in views if view.live]
    for view in live[:_SHOWN_MAX]:
        yield (
            f"Live: {_name(view)} is {view.state} since {view.state_time}, for {_age(view.state_time, now_ms)}"
            f"{_shown_by(view, entries)}; no record ends it."
        )
    if len(live) > _SHOWN_MAX:
        yield f"{len(live) - _SHOWN_MAX} more communications are live."
    if views and not live:
        last = max(views, key=lambda view: view.state_time)
        by = f" ({last.disconnect_type})" if last.disconnect_type else ""
        yield (
            f"Over: the last of {len(views)} communications to end, {_name(last)}, is {last.state}{by} since "
            f"{last.state_time}, for {_age(last.state_time, now_ms)}{_shown_by(last, entries)}."
        )
    if not views:
        yield "No communication of it was seen."
    yield (
        f"The newest snapshot is of {state.snapshot_time}, {_age(state.snapshot_time, now_ms)} ago; the record at "
        f"offset {state.source.offset} changed the state last."
    )


def conclude_from_refused(conversation_id: str, refused: Iterable[tuple[str, Sequence[int]]]) -> Iterator[str]:
    """What to do about dead letters. `refused` has by reason the offsets of the records in the input, in order."""
    for reason, offsets in refused:
        remedy = _REMEDIES.get(reason, _REDRIVE).format(id=conversation_id)
        yield f"Refused as {reason}: {len(offsets)} of its records, the last at offset {offsets[-1]}. {remedy}"


def _name(view: CommunicationView) -> str:
    owner = f" of the {view.purpose}" if view.purpose else f" of participant {view.participant_id}"
    return f"{view.media} {view.communication_id or 'without an id'}{owner}"


def _shown_by(view: CommunicationView, entries: Entries) -> str:
    identity = (view.participant_id, view.media, view.communication_id)
    record = entries.get((identity, view.state, view.state_time))
    if record is None:
        return ""
    arrived = f", which arrived {record.timestamp}" if record.timestamp else ""
    return f" (by the record at offset {record.offset}{arrived})"


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
