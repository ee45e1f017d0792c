"""Process one record: classify it, apply it, return what to publish. Pure; the worker performs what it returns.

1. Every record gets exactly one outcome: applied, unchanged, ignored or dead-lettered.
2. States are values: a step that fails, for whatever reason, leaves nothing behind.
3. An exception of ours is a dead letter `internal_error`, described by its type and place, never by its text.
"""

import traceback
from collections.abc import Callable
from itertools import chain

from consumer.core import conversation, state_codec, transitions
from consumer.core.envelope import Envelope
from consumer.core.framing import Framed
from consumer.core.outcomes import Applied, DeadLettered, Ignored, Outcome, Unchanged
from consumer.core.reading import Checked, Envelopes, NoUpdate, Opened, Parts, Rejected, Stage, Unread, begin, read
from consumer.core.reasons import Anomaly
from consumer.core.record import Record
from consumer.core.refold import Change
from consumer.core.retention import advance, is_late
from consumer.core.rules import Rules
from consumer.core.snapshot import Decoded, Snapshot, decode, decode_body
from consumer.core.state_codec import StoredState
from schemas.state import Source

Lookup = Callable[[str], StoredState | None]


def step(record: Record, rules: Rules, stream_ms: int | None, lookup: Lookup) -> Outcome:
    """Process a record.

    `lookup` gives the newest state of a conversation by its id, None for an unknown one; `stream_ms` is the stream
    time of the partition before this record, None at its beginning. Never raises.
    """
    try:
        return _judge(record, decode(record, rules), rules, stream_ms, lookup)
    except Exception as error:  # noqa: BLE001 - a bug of ours must not stop a partition
        return _reject_bug(error, record, stream_ms)


class LongStep:
    """A step in stages, for a long record: between them other work may have its turn. The outcome is that of `step`."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._read: Stage | Opened | Decoded | None = None

    def advance(self, rules: Rules, stream_ms: int | None, lookup: Lookup) -> Outcome | None:
        """Perform the next stage: None before the last. Only the last one uses the state and stream time."""
        try:
            match self._read:
                case None:
                    self._read = begin(self.record, rules)
                case (Framed() | Checked() | Unread() | Parts()) as stage:
                    self._read = read(stage)
                case (Envelope() | Envelopes()) as opened:
                    self._read = decode_body(self.record, opened, rules)
                case decoded:
                    return _judge(self.record, decoded, rules, stream_ms, lookup)
        except Exception as error:  # noqa: BLE001 - as in `step`
            return _reject_bug(error, self.record, stream_ms)
        return None


def _judge(record: Record, decoded: Decoded, rules: Rules, stream_ms: int | None, lookup: Lookup) -> Outcome:
    if isinstance(decoded, NoUpdate):
        return Ignored(decoded.reason, stream_ms)
    if isinstance(decoded, Rejected):
        return _reject_undecoded(decoded, record, stream_ms)
    return _apply(record, decoded, rules, stream_ms, lookup(decoded.conversation_id))


def _reject_bug(error: Exception, record: Record, stream_ms: int | None) -> DeadLettered:
    place = traceback.extract_tb(error.__traceback__)[-1]
    rejected = Rejected("internal_error", f"{type(error).__name__} in {place.name}, line {place.lineno}")
    return _reject_undecoded(rejected, record, stream_ms)


def _apply(
    record: Record, snapshot: Snapshot, rules: Rules, stream_ms: int | None, before: StoredState | None
) -> Outcome:
    source = Source(record.topic, record.partition, record.offset)
    advanced_ms = advance(stream_ms, snapshot.time_ms)
    if before is not None:
        state, update_cache = before.state, before.update_cache
    elif is_late(stream_ms, snapshot.time_ms, rules):
        return _reject(Rejected("late", "first seen after its retention"), advanced_ms, snapshot)
    else:
        state, update_cache = conversation.empty((*snapshot.others, snapshot)[0], source), {}
    if snapshot.excess:
        return _reject(Rejected("too_large", snapshot.excess), advanced_ms, snapshot)
    first, changes, anomalies = state, list[Change](), list[Anomaly]()
    for part in (*snapshot.others, snapshot):
        applied = conversation.apply(state, update_cache, part, source, rules)
        if not applied.is_usable:
            return _reject(Rejected("nothing_usable", "no participant has an id"), advanced_ms, snapshot)
        state, update_cache = applied.state, applied.update_cache
        changes += applied.changes
        anomalies += (*part.anomalies, *applied.anomalies)
    if before is not None and state is first:
        return Unchanged(
            stream_ms=advanced_ms,
            template=snapshot.template,
            conversation_id=snapshot.conversation_id,
            snapshot_ms=snapshot.time_ms,
            framings=snapshot.framings,
            anomalies=tuple(anomalies),
        )
    after = state_codec.encode(state, update_cache)
    excess = _find_excess(after, rules)
    if excess is not None:
        return _reject(Rejected("too_large", excess), advanced_ms, snapshot)
    operations = [transitions.derive(snapshot.conversation_id, change, source) for change in changes]
    return Applied(
        stream_ms=advanced_ms,
        template=snapshot.template,
        conversation_id=snapshot.conversation_id,
        snapshot_ms=snapshot.time_ms,
        framings=snapshot.framings,
        anomalies=tuple(anomalies),
        stored=after,
        transitions=tuple(chain(*operations)),
        changes=tuple(changes),
    )


def _find_excess(after: StoredState, rules: Rules) -> str | None:
    """Which limit of the rules a state is beyond, None if it is within all of them."""
    size = len(after.published)
    if size > rules.state_bytes_max:
        return f"state of {size} bytes, state_bytes_max is {rules.state_bytes_max}"
    communications = sum([len(participant.communications) for participant in after.state.participants])
    if communications > rules.communications_max:
        return f"{communications} communications, communications_max is {rules.communications_max}"
    return None


def _reject(rejected: Rejected, stream_ms: int, snapshot: Snapshot) -> DeadLettered:
    return DeadLettered(
        rejected.reason,
        rejected.where,
        stream_ms,
        template=snapshot.template,
        conversation_id=snapshot.conversation_id,
        snapshot_ms=snapshot.time_ms,
    )


def _reject_undecoded(rejected: Rejected, record: Record, stream_ms: int | None) -> DeadLettered:
    key_text = rejected.conversation_id or (record.key or b"").decode("utf-8", "surrogateescape")
    return DeadLettered(rejected.reason, rejected.where, stream_ms, key_text=key_text)
