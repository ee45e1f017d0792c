"""Derive what to publish from a changed fold: retractions, newest first, then assertions in order."""

import hashlib

from consumer.core import timestamps
from consumer.core.refold import Change
from consumer.core.timeline import Entry
from schemas.state import Source
from schemas.transition import TRANSITION_SCHEMA, Context, Operation, Transition

_SEPARATOR = "\x1f"


def derive(conversation_id: str, change: Change, source: Source) -> list[Transition]:
    """Derive the operations for one communication: the common prefix of the two folds stands, the rest is replaced.

    If the new fold is the old one without a part (a dropped park cycle), what follows that part stands as well.
    """
    first, retracted_end, asserted_first = _diff(change.before, change.after)
    participant, communication = change.participant, change.communication
    context = Context(
        purpose=participant.purpose,
        user_id=participant.user_id,
        queue_id=participant.queue_id,
        disconnect_type=communication.disconnect_type,
        error_code=communication.error_code,
        disconnect_reasons=communication.disconnect_reasons,
    )

    def build(op: Operation, entry: Entry) -> Transition:
        since_ms = timestamps.to_ms(entry.since) if entry.since else None
        return Transition(
            schema=TRANSITION_SCHEMA,
            id=_digest_id(conversation_id, change, entry),
            op=op,
            conversation_id=conversation_id,
            participant_id=change.participant_id,
            communication_id=change.communication_id,
            media=change.media,
            from_state=entry.from_state,
            to_state=entry.to_state,
            event_time=entry.time,
            time_class=entry.time_class,
            milliseconds_in_from=None if since_ms is None else timestamps.to_ms(entry.time) - since_ms,
            context=context,
            source=source,
        )

    retractions = [build("retract", entry) for entry in reversed(change.before[first:retracted_end])]
    return retractions + [build("assert", entry) for entry in change.after[asserted_first:]]


def _diff(before: list[Entry], after: list[Entry]) -> tuple[int, int, int]:
    """Three indices: `before[first:retracted_end]` is to be retracted, `after[asserted_first:]` to be asserted."""
    first = 0
    for old, new in zip(before, after, strict=False):
        if old != new:
            break
        first += 1
    if first < len(before) and first < len(after) and after[first] in before:
        follows = before.index(after[first])
        standing = len(before) - follows
        if before[follows:] == after[first : first + standing]:
            return first, follows, first + standing
    return first, len(before), first


def _digest_id(conversation_id: str, change: Change, entry: Entry) -> str:
    """A digest of what identifies the transition, so that every worker derives the same id."""
    parts = (
        conversation_id,
        change.participant_id,
        change.media,
        change.communication_id or "",
        entry.from_state or "",
        entry.to_state,
        str(entry.rank),
        entry.cycle,
        entry.time,
    )
    return hashlib.blake2b(_SEPARATOR.join(parts).encode(), digest_size=16).hexdigest()
