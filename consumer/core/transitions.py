"""From a changed fold to the operations that tell of it: retractions, newest first, then assertions in order."""

import hashlib

from consumer.core import times
from consumer.core.participant import Change
from consumer.core.timeline import Entry
from schemas.state import Source
from schemas.transition import TRANSITION_SCHEMA, Context, Operation, Transition

_SEPARATOR = "\x1f"


def operations(conversation_id: str, change: Change, source: Source) -> list[Transition]:
    """What to publish for one communication: the common prefix of the two folds stands, the rest is replaced.

    Where a part of the old fold has only fallen out, what follows it stands as well.
    """
    first, retracted_end, asserted_first = _replaced(change.before, change.after)
    context = Context(
        change.participant.purpose, change.participant.user_id, change.participant.queue_id, change.disconnect_type
    )

    def operation(op: Operation, entries: list[Entry], index: int) -> Transition:
        entry = entries[index]
        since = times.milliseconds(entry.since) if entry.since else None
        return Transition(
            TRANSITION_SCHEMA,
            _id(conversation_id, change, entry),
            op,
            conversation_id,
            change.participant_id,
            change.communication_id,
            change.media,
            entry.from_state,
            entry.to_state,
            entry.time,
            entry.time_class,
            None if since is None else times.milliseconds(entry.time) - since,
            context,
            source,
        )

    retracted = [operation("retract", change.before, index) for index in range(retracted_end - 1, first - 1, -1)]
    return retracted + [operation("assert", change.after, index) for index in range(asserted_first, len(change.after))]


def _replaced(before: list[Entry], after: list[Entry]) -> tuple[int, int, int]:
    """Which entries differ: the first, the end of those before that are retracted, the first after to be asserted."""
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


def _id(conversation_id: str, change: Change, entry: Entry) -> str:
    """A digest of what makes the transition this one: the same whoever derives it."""
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
