"""Recompute one partition of the input and compare the result with what was published of it.

1. Only what the group has committed is compared: the effects of records before `end`. Everything published from later
   records is left out, record by record, so the workers may go on meanwhile.
2. Memory holds the recomputed states as bytes, as a lane of the partition does. Of what was published it holds one
   digest per conversation and one per standing transition, some 300 bytes each. Both sides in full are needed only for
   the conversations that are listed.
3. A conversation that may differ by design is excluded, and counted by the reason (`Exclusion`). Any other difference
   is a fault.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec import Struct

from consumer.core import state_codec, timestamps
from consumer.core.reasons import DeadLetterReason
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.state_codec import source_of, without_source
from consumer.engine.dead_letters import parse
from consumer.query.timeline_view import communications
from consumer.tools.differences import Difference, compare
from consumer.tools.replay import Replay
from schemas.query import CommunicationView, StandingTransition
from schemas.state import ConversationState, Source
from schemas.transition import WIRE_NAMES, Transition

Exclusion = Literal["ahead", "evicted", "returned", "refused", "before_input", "transitions_deleted"]
EXCLUSIONS: dict[Exclusion, str] = {
    "ahead": "changed by records after the committed offset",
    "evicted": "at the end of their retention, where an eviction may come a little earlier or later",
    "returned": "came back after an eviction",
    "refused": "with a record that was dead-lettered as late, too_large or internal_error, which depends on arrival",
    "before_input": "may have been seen before the first record that the input still holds",
    "transitions_deleted": "with transitions that retention may have deleted from their topic",
}
"""Why a conversation may differ by design, as a predicate of "conversations"."""

DifferenceKind = Literal["state", "transition"]


class _Sourced(Struct):
    source: Source


_BY_ARRIVAL: Final[frozenset[DeadLetterReason]] = frozenset(("late", "too_large", "internal_error"))
"""Reasons of dead letters that depend on when a record arrived, not on the record alone."""
_TIME = re.compile(rb'"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)"')
_DIGEST_BYTES = 16
_FIRST_RECORDS = 100
_STATE = msgspec.json.Decoder(ConversationState)
_TRANSITION = msgspec.json.Decoder(Transition)
_SOURCED = msgspec.json.Decoder(_Sourced)
_ENCODER = msgspec.json.Encoder()

assert set(EXCLUSIONS) == set(get_args(Exclusion))


class ComparedTransition(Struct, frozen=True, gc=False, rename=WIRE_NAMES):
    """The part of a standing transition that is compared: all but its id, its context and its source."""

    participant_id: str
    media: str
    communication_id: str | None
    from_state: str | None
    to_state: str
    event_time: str
    time_class: str
    milliseconds_in_from: int | None

    def digest(self) -> bytes:
        """A digest of all fields."""
        return hashlib.blake2b(_ENCODER.encode(self), digest_size=_DIGEST_BYTES).digest()


class _PublishedState(Struct, frozen=True, gc=False):
    digest: bytes
    seen_before: bool
    """Whether the conversation may have been seen before the first record of the input."""
    live: int
    snapshot_time: str


class Comparison(Struct):
    """The result of a comparison. It counts conversations unless a field says otherwise."""

    records: int = 0
    """Records of the input that were recomputed."""
    conversations: int = 0
    equal: int = 0
    different: int = 0
    excluded: Counter[str] = msgspec.field(default_factory=Counter)
    """By `Exclusion`."""
    transitions: int = 0
    """Standing transitions that were compared."""
    different_transitions: int = 0

    def add(self, other: "Comparison") -> None:
        """Add the result of another partition."""
        self.records += other.records
        self.conversations += other.conversations
        self.equal += other.equal
        self.different += other.different
        self.excluded.update(other.excluded)
        self.transitions += other.transitions
        self.different_transitions += other.different_transitions


class Verification:
    """Compares one partition.

    Add the records of one topic after the other, each in order of offset: dead letters, input, states, transitions.
    Then call `compare`.
    """

    def __init__(self, rules: Rules, input_topic: str, begin: int, end: int) -> None:
        self.comparison = Comparison()
        self.different: dict[str, set[str]] = {}
        """The ids of the transitions that differ, by conversation. A conversation may differ by its state alone."""
        self.first_ms: int | None = None
        """The newest timestamp among the first `_FIRST_RECORDS` of the input: the very first may have come late."""
        self._rules = rules
        self._input_topic = input_topic
        self._begin = begin
        self._end = end
        self._replay = Replay(rules)
        self._refused_offsets: set[int] = set()
        self._refused: set[str] = set()
        self._published: dict[str, _PublishedState] = {}
        self._ahead: set[str] = set()
        self._before: set[str] = set()
        """Conversations whose transitions have a source before the first record of the input."""
        self._tombstones: set[str] = set()
        self._standing: dict[str, dict[bytes, bytes]] = defaultdict(dict)
        """Digests of the published standing transitions, by conversation and id."""
        self._stream_ms: int | None = None
        self._deleted_until: str | None = None
        """Transitions up to this event time may have been deleted from their topic; None if it still holds all."""

    def add_dead_letter(self, record: Record) -> None:
        """Add a record of the dead letters topic."""
        letter = parse(record)
        if letter is not None and letter.reason in _BY_ARRIVAL and letter.original.topic == self._input_topic:
            self._refused_offsets.add(letter.original.offset)

    def add_input(self, records: list[Record]) -> None:
        """Recompute from the next records of the input, all of them before `end`."""
        for record in records:
            if self.comparison.records < _FIRST_RECORDS:
                self.first_ms = max(record.timestamp_ms, self.first_ms or record.timestamp_ms)
            _, outcome = self._replay.apply(record)
            self.comparison.records += 1
            was_refused = record.offset in self._refused_offsets
            if outcome.conversation_id and was_refused != (outcome.reason in _BY_ARRIVAL):
                self._refused.add(outcome.conversation_id)
        self._replay.commit()

    def add_state(self, record: Record) -> None:
        """Add a record of the state topic. Raises ValueError and msgspec.DecodeError if it is not a state."""
        if record.key is None:
            return
        conversation_id = record.key.decode()
        if record.value is None:
            self._published.pop(conversation_id, None)
            self._tombstones.add(conversation_id)
            return
        source = source_of(record.value)
        if self._is_ahead(source):
            self._ahead.add(conversation_id)
            return
        summary = state_codec.summary(record.value)
        seen_before = self._may_precede_input(record.value, source.offset)
        self._published[conversation_id] = _PublishedState(
            _digest(record.value), seen_before, summary.live, summary.snapshot_time
        )

    def begin_transitions(self, *, is_complete: bool) -> None:
        """Say whether the transitions topic still holds its first record. Call this before `add_transition`."""
        self._deleted_until = None if is_complete else timestamps.to_text(timestamps.LATEST_MS)

    def add_transition(self, record: Record) -> None:
        """Add a record of the transitions topic. Raises msgspec.DecodeError if it is not a transition."""
        self._note_first_transition(record)
        conversation_id = (record.key or b"").decode()
        if conversation_id not in self._published and self._replay.store.get(conversation_id) is None:
            return
        transition = _TRANSITION.decode(record.value or b"")
        source = transition.source
        if source.topic == self._input_topic and source.offset < self._begin:
            self._before.add(conversation_id)
        if self._is_ahead(source):
            return
        standing, transition_id = self._standing[conversation_id], bytes.fromhex(transition.id)
        if transition.op == "assert":
            standing[transition_id] = to_compared(transition).digest()
        else:
            standing.pop(transition_id, None)

    def _note_first_transition(self, record: Record) -> None:
        if self._deleted_until == timestamps.to_text(timestamps.LATEST_MS):
            latest_ms = record.timestamp_ms + self._rules.future_skew_max_s * 1_000
            self._deleted_until = timestamps.to_text(max(latest_ms, timestamps.EARLIEST_MS))

    def compare(self, stream_ms: int | None) -> None:
        """Compare what was recomputed with what was published. Call this once, when every record was added.

        `stream_ms` is the stream time by which the workers may have evicted conversations meanwhile.
        """
        times_ms = [time_ms for time_ms in (self._replay.stream_ms, stream_ms) if time_ms is not None]
        self._stream_ms = max(times_ms, default=None)
        store = self._replay.store
        for conversation_id, state in store.items():
            self._compare_conversation(conversation_id, state, self._published.get(conversation_id))
        for conversation_id, published in self._published.items():
            if store.get(conversation_id) is None:
                self._compare_conversation(conversation_id, None, published)
        only_ahead = sum(key not in self._published and store.get(key) is None for key in self._ahead)
        if only_ahead:
            self.comparison.conversations += only_ahead
            self.comparison.excluded["ahead"] += only_ahead

    def differences(
        self, conversation_id: str, published: bytes | None, standing: Mapping[str, ComparedTransition]
    ) -> Iterator[tuple[DifferenceKind, Difference]]:
        """Every difference of a conversation in `different`, given its published state and standing transitions."""
        recomputed = self._replay.store.get(conversation_id)
        if published is None or recomputed is None:
            yield "state", Difference("", _summarize(published), _summarize(recomputed))
        else:
            for difference in compare(_document(published), _document(recomputed)):
                yield "state", difference
        expected = {} if recomputed is None else self._find_expected(recomputed)
        for transition_id in sorted(self.different[conversation_id]):
            sides = (msgspec.to_builtins(side.get(transition_id)) for side in (standing, expected))
            yield "transition", Difference(transition_id, *sides)

    def covers(self, record: Record) -> bool:
        """Whether a record of the state or the transitions topic stems from the compared part of the input."""
        return record.value is None or not self._is_ahead(_SOURCED.decode(record.value).source)

    def _is_ahead(self, source: Source) -> bool:
        return source.topic == self._input_topic and source.offset >= self._end

    def _may_precede_input(self, state: bytes, offset: int) -> bool:
        """Whether a state, last changed by the record at `offset`, may hold what only a deleted record had.

        It may if one of its times is before the first records that are left.
        """
        if self._begin == 0:
            return False
        first = timestamps.to_text(max(timestamps.EARLIEST_MS, self.first_ms or timestamps.LATEST_MS))
        return offset < self._begin or min(_TIME.findall(state), default=b"") < first.encode()

    def _compare_conversation(
        self, conversation_id: str, recomputed: bytes | None, published: _PublishedState | None
    ) -> None:
        comparison = self.comparison
        comparison.conversations += 1
        wrong = set() if recomputed is None else self._find_wrong_transitions(conversation_id, recomputed)
        if recomputed is not None and published is not None and _digest(recomputed) == published.digest:
            if not wrong:
                comparison.equal += 1
                return
            exclusion = self._exclude_transitions(conversation_id, recomputed, wrong)
        else:
            exclusion = self._exclude_state(conversation_id, recomputed, published)
        if exclusion is not None:
            comparison.excluded[exclusion] += 1
            return
        comparison.different += 1
        comparison.different_transitions += len(wrong)
        self.different[conversation_id] = wrong

    def _exclude_transitions(self, conversation_id: str, recomputed: bytes, wrong: set[str]) -> Exclusion | None:
        """Why transitions may differ by design, although they follow from states that are equal."""
        if self._has_returned(conversation_id):
            return "returned"
        expected, until = self._find_expected(recomputed), self._deleted_until
        if until is not None and all(key in expected and expected[key].event_time <= until for key in wrong):
            return "transitions_deleted"
        return None

    def _exclude_state(
        self, conversation_id: str, recomputed: bytes | None, published: _PublishedState | None
    ) -> Exclusion | None:
        """Why two states may differ by design."""
        if self._has_returned(conversation_id):
            return "returned"
        if conversation_id in self._refused:
            return "refused"
        if published is not None:
            if recomputed is None and self._has_expired(published.live, published.snapshot_time):
                return "evicted"
            return "before_input" if published.seen_before or conversation_id in self._before else None
        assert recomputed is not None
        if conversation_id in self._ahead:
            return "ahead"
        summary = state_codec.summary(recomputed)
        if self._has_expired(summary.live, summary.snapshot_time):
            return "evicted"
        may_precede = self._may_precede_input(recomputed, source_of(recomputed).offset)
        return "before_input" if may_precede or conversation_id in self._before else None

    def _has_returned(self, conversation_id: str) -> bool:
        return conversation_id in self._replay.returned or (
            conversation_id in self._tombstones and conversation_id in self._published
        )

    def _has_expired(self, live: int, snapshot_time: str) -> bool:
        return self._stream_ms is not None and self._replay.store.is_over(live, snapshot_time, self._stream_ms)

    def _find_expected(self, state: bytes) -> dict[str, ComparedTransition]:
        """The transitions that should stand, by id."""
        return {
            transition.id: _select_compared(communication, transition)
            for communication in communications(_STATE.decode(state), self._rules.park_cycles_max)
            for transition in communication.transitions
        }

    def _find_wrong_transitions(self, conversation_id: str, state: bytes) -> set[str]:
        """The ids of transitions that stand but should not, that should but do not, or whose fields differ."""
        expected = {key: transition.digest() for key, transition in self._find_expected(state).items()}
        self.comparison.transitions += len(expected)
        standing = {key.hex(): digest for key, digest in self._standing.get(conversation_id, {}).items()}
        return {key for key, _ in expected.items() ^ standing.items()}


def to_compared(transition: Transition) -> ComparedTransition:
    """The part of a published transition that is compared."""
    return _select_compared(transition, transition)


def _select_compared(
    communication: CommunicationView | Transition, transition: StandingTransition | Transition
) -> ComparedTransition:
    return ComparedTransition(
        communication.participant_id,
        communication.media,
        communication.communication_id,
        transition.from_state,
        transition.to_state,
        transition.event_time,
        transition.time_class,
        transition.milliseconds_in_from,
    )


def _digest(state: bytes) -> bytes:
    return hashlib.blake2b(without_source(state), digest_size=_DIGEST_BYTES).digest()


def _document(state: bytes) -> Any:
    return msgspec.json.decode(without_source(state))


def _summarize(state: bytes | None) -> Any:
    return None if state is None else msgspec.to_builtins(state_codec.summary(state))
