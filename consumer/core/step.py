"""One record, one step: what becomes of it and what is to be published. Pure; the shell performs what it returns.

1. Every record gets exactly one disposition: `applied`, `unchanged`, `ignored` or `dead_lettered`.
2. States are values: a step that fails, for whatever reason, leaves nothing behind.
3. An exception of ours is a dead letter `internal_error`, told by its type and place, never by its text.
"""

import traceback
from collections.abc import Callable
from itertools import chain
from typing import Literal, get_args

from msgspec import Struct

from consumer.core import conversation
from consumer.core.conversation import LastShown
from consumer.core.decode import Ignored, Rejected, Snapshot, decode
from consumer.core.known import Known, encoded
from consumer.core.participant import Change
from consumer.core.record import Record
from consumer.core.retention import advanced, is_late
from consumer.core.rules import Rules
from consumer.core.transitions import operations
from schemas.state import Source
from schemas.transition import Transition

Disposition = Literal["applied", "unchanged", "ignored", "dead_lettered"]

DISPOSITIONS: tuple[Disposition, ...] = get_args(Disposition)
IGNORED_REASONS = ("tombstone", "heartbeat", "system", "subscription_reply", "other_topic", "bare_flat")
DEAD_LETTER_REASONS = (
    "bad_json",
    "bad_utf8",
    "wrong_type",
    "too_deep",
    "too_large",
    "no_conversation_id",
    "no_time",
    "nothing_usable",
    "key_mismatch",
    "late",
    "internal_error",
)
NOTES = (
    "implausible_time",
    "time_of_body",
    "flat_body",
    "participant_without_id",
    "communication_without_id",
    "communication_without_state",
    "ambiguous_communication",
    "unknown_state",
    "unknown_disconnect_type",
    "key_missing",
    "key_different",
)
"""Every oddity that `Outcome.notes` can name."""


class Outcome(Struct, frozen=True, gc=False):
    """What one record came to. `known` is set only if applied, `reason` only if ignored or dead-lettered."""

    disposition: Disposition
    reason: str = ""
    detail: str = ""
    """For a dead letter: the rule and where it was broken, free of values."""
    notes: tuple[str, ...] = ()
    template: str = "other"
    """The topic's template, from the closed set `topics.TEMPLATES`."""
    conversation_id: str = ""
    snapshot_ms: int | None = None
    stream_ms: int | None = None
    """Stream time of the partition after this record."""
    known: Known | None = None
    """The conversation as it is known from now on, if applied."""
    transitions: tuple[Transition, ...] = ()
    changes: tuple[Change, ...] = ()
    named: str = ""
    """What names the conversation of a dead letter that got no `conversation_id`: the body, else the record's key."""


def step(record: Record, rules: Rules, stream_ms: int | None, lookup: Callable[[str], Known | None]) -> Outcome:
    """What becomes of a record.

    `lookup` gives what is known of a conversation by its id, None for one that is not known; `stream_ms` is the
    stream time of the partition before this record, None at its beginning.
    """
    try:
        decoded = decode(record, rules)
        if isinstance(decoded, Ignored):
            return Outcome("ignored", decoded.reason, stream_ms=stream_ms)
        if isinstance(decoded, Rejected):
            return _dead_letter_unread(decoded, record, stream_ms)
        return _apply(record, decoded, rules, stream_ms, lookup(decoded.conversation_id))
    except Exception as error:  # noqa: BLE001 - a bug of ours must not stop a partition; it is told by type and place
        place = traceback.extract_tb(error.__traceback__)[-1]
        rejected = Rejected("internal_error", f"{type(error).__name__} in {place.name}, line {place.lineno}")
        return _dead_letter_unread(rejected, record, stream_ms)


def _apply(record: Record, snapshot: Snapshot, rules: Rules, stream_ms: int | None, before: Known | None) -> Outcome:
    source = Source(record.topic, record.partition, record.offset)
    notes = list(snapshot.notes)
    if snapshot.key != "fits":
        notes.append(f"key_{snapshot.key}")
    advanced_ms = advanced(stream_ms, snapshot.time_ms)
    last: LastShown = {}
    if before is not None:
        state, last = before.state, before.last
    elif is_late(stream_ms, snapshot.time_ms, rules):
        return _dead_letter(Rejected("late", "first seen after its retention"), advanced_ms, snapshot)
    else:
        state = conversation.empty(snapshot, source)
    if snapshot.excess:
        return _dead_letter(Rejected("too_large", snapshot.excess), advanced_ms, snapshot)
    applied = conversation.apply(state, last, snapshot, source, rules, notes)
    if not applied.usable:
        return _dead_letter(Rejected("nothing_usable", "no participant has an id"), advanced_ms, snapshot)
    if before is not None and applied.state is state:
        return Outcome(
            "unchanged",
            notes=tuple(notes),
            template=snapshot.template,
            conversation_id=snapshot.conversation_id,
            snapshot_ms=snapshot.time_ms,
            stream_ms=advanced_ms,
        )
    after = encoded(applied.state, applied.last)
    oversize = _oversize(after, rules)
    if oversize is not None:
        return _dead_letter(oversize, advanced_ms, snapshot)
    return Outcome(
        "applied",
        "",
        "",
        tuple(notes),
        snapshot.template,
        snapshot.conversation_id,
        snapshot.time_ms,
        advanced_ms,
        after,
        tuple(chain(*[operations(snapshot.conversation_id, change, source) for change in applied.changes])),
        tuple(applied.changes),
    )


def _oversize(after: Known, rules: Rules) -> Rejected | None:
    size = len(after.published)
    if size > rules.state_bytes_max:
        return Rejected("too_large", f"state of {size} bytes, state_bytes_max is {rules.state_bytes_max}")
    communications = sum([len(participant.communications) for participant in after.state.participants])
    if communications <= rules.communications_max:
        return None
    return Rejected("too_large", f"{communications} communications, communications_max is {rules.communications_max}")


def _dead_letter(rejected: Rejected, stream_ms: int | None, snapshot: Snapshot) -> Outcome:
    return Outcome(
        "dead_lettered",
        rejected.reason,
        rejected.where,
        template=snapshot.template,
        conversation_id=snapshot.conversation_id,
        snapshot_ms=snapshot.time_ms,
        stream_ms=stream_ms,
    )


def _dead_letter_unread(rejected: Rejected, record: Record, stream_ms: int | None) -> Outcome:
    """The outcome of a record of which there is no snapshot."""
    named = rejected.conversation_id or (record.key or b"").decode("utf-8", "surrogateescape")
    return Outcome("dead_lettered", rejected.reason, rejected.where, stream_ms=stream_ms, named=named)
