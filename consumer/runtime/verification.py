"""One partition of the input recomputed, and compared with what was published of it.

1. Compared is what the group has committed: records before `bound`. What was published from later records is left
   aside, record by record, so that a worker may go on meanwhile.
2. In memory are the recomputed states as bytes, as a lane of the partition holds them, and of what was published a
   digest per conversation and one per standing transition (some 300 bytes each); both sides in full only of the
   conversations that are shown.
3. Everything that may differ by design is counted apart, under the reason (`Apart`); all the rest is a difference.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from consumer.core import known, times
from consumer.core.arrival import source_of, without_source
from consumer.core.differences import Differing, differing
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.view import communications
from consumer.runtime.dead_letters import opened
from consumer.runtime.replay import Replay
from schemas.query import CommunicationView, StandingTransition
from schemas.state import ConversationState, Source
from schemas.transition import Transition

Apart = Literal["ahead", "evicted", "returned", "refused", "before_input", "transitions_deleted"]
APART: dict[Apart, str] = {
    "ahead": "changed by records after the committed offset",
    "evicted": "at the end of their retention, where an eviction may come a little earlier or later",
    "returned": "came back after an eviction",
    "refused": "with a record that was dead-lettered as late, too_large or internal_error, which depends on arrival",
    "before_input": "may have been seen before the first record that the input still holds",
    "transitions_deleted": "with transitions that retention may have deleted from their topic",
}
"""Why a conversation that is not equal is no difference."""

What = Literal["state", "transition"]


class _Sourced(Struct):
    source: Source


_BY_ARRIVAL = frozenset(("late", "too_large", "internal_error"))
_TIME = re.compile(rb'"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)"')
_DIGEST_BYTES = 16
_FIRST_RECORDS = 100
_STATE = msgspec.json.Decoder(ConversationState)
_TRANSITION = msgspec.json.Decoder(Transition)
_SOURCED = msgspec.json.Decoder(_Sourced)
_ENCODER = msgspec.json.Encoder()

assert set(APART) == set(get_args(Apart))


class Shown(
    Struct,
    frozen=True,
    gc=False,
    rename={
        "participant_id": "participantId",
        "communication_id": "communicationId",
        "from_state": "from",
        "to_state": "to",
        "event_time": "eventTime",
        "time_class": "timeClass",
        "milliseconds_in_from": "millisecondsInFrom",
    },
):
    """What is compared of a standing transition."""

    participant_id: str
    media: str
    communication_id: str | None
    from_state: str | None
    to_state: str
    event_time: str
    time_class: str
    milliseconds_in_from: int | None

    def digest(self) -> bytes:
        """What tells it from others."""
        return hashlib.blake2b(_ENCODER.encode(self), digest_size=_DIGEST_BYTES).digest()


class _Published(Struct, frozen=True, gc=False):
    digest: bytes
    seen_before: bool
    """Whether it may have been seen before the first record of the input."""
    live: int
    snapshot_time: str


class Comparison(Struct):
    """What a comparison came to, in conversations but for the first and the last two."""

    records: int = 0
    conversations: int = 0
    equal: int = 0
    different: int = 0
    apart: Counter[str] = msgspec.field(default_factory=Counter)
    transitions: int = 0
    """Standing transitions compared."""
    different_transitions: int = 0

    def add(self, other: "Comparison") -> None:
        """Take in that of another partition."""
        self.records += other.records
        self.conversations += other.conversations
        self.equal += other.equal
        self.different += other.different
        self.apart.update(other.apart)
        self.transitions += other.transitions
        self.different_transitions += other.different_transitions


class Verification:
    """Compares one partition. The records of each topic come in order: letters, then input, states, transitions."""

    def __init__(self, rules: Rules, input_topic: str, begin: int, bound: int) -> None:
        self.comparison = Comparison()
        self.different: dict[str, set[str]] = {}
        """Conversations that differ, with the ids of the transitions that do."""
        self.first_ms: int | None = None
        """The newest timestamp among the first `_FIRST_RECORDS` of the input: the very first may have come late."""
        self._rules = rules
        self._input_topic = input_topic
        self._begin = begin
        self._bound = bound
        self._replay = Replay(rules)
        self._refused_offsets: set[int] = set()
        self._refused: set[str] = set()
        self._published: dict[str, _Published] = {}
        self._ahead: set[str] = set()
        self._before: set[str] = set()
        """Conversations of which transitions tell that they were seen before the first record of the input."""
        self._tombstones: set[str] = set()
        self._standing: dict[str, dict[bytes, bytes]] = defaultdict(dict)
        self._stream_ms: int | None = None
        self._transitions_since: str | None = None
        """Transitions up to this time may have been deleted from their topic; None where it holds all."""

    def take_letter(self, record: Record) -> None:
        """Take in a record of the dead letters topic."""
        letter = opened(record)
        if letter is not None and letter.reason in _BY_ARRIVAL and letter.original.topic == self._input_topic:
            self._refused_offsets.add(letter.original.offset)

    def take_input(self, records: list[Record]) -> None:
        """Recompute from records before the bound."""
        for record in records:
            if self.comparison.records < _FIRST_RECORDS:
                self.first_ms = max(record.timestamp_ms, self.first_ms or record.timestamp_ms)
            _, outcome = self._replay.take(record)
            self.comparison.records += 1
            was_refused = record.offset in self._refused_offsets
            if outcome.conversation_id and was_refused != (outcome.reason in _BY_ARRIVAL):
                self._refused.add(outcome.conversation_id)
        self._replay.settle()

    def take_state(self, record: Record) -> None:
        """Take in a record of the state topic. Raises ValueError and msgspec.DecodeError where it is no state."""
        if record.key is None:
            return
        conversation_id = record.key.decode()
        if record.value is None:
            self._published.pop(conversation_id, None)
            self._tombstones.add(conversation_id)
            return
        source = source_of(record.value)
        if self._is_ahead(source.topic, source.offset):
            self._ahead.add(conversation_id)
            return
        summary = known.summary(record.value)
        self._published[conversation_id] = _Published(
            _digest(record.value), self._seen_before(record.value, source.offset), summary.live, summary.snapshot_time
        )

    def begin_transitions(self, *, complete: bool) -> None:
        """Say whether the transitions topic still holds its first record, before any of its records is taken in."""
        self._transitions_since = None if complete else times.text(times.LATEST_MS)

    def take_transition(self, record: Record) -> None:
        """Take in a record of the transitions topic. Raises msgspec.DecodeError where it is none."""
        self._note_first_transition(record)
        conversation_id = (record.key or b"").decode()
        if conversation_id not in self._published and self._replay.store.get(conversation_id) is None:
            return
        operation = _TRANSITION.decode(record.value or b"")
        if operation.source.topic == self._input_topic and operation.source.offset < self._begin:
            self._before.add(conversation_id)
        if self._is_ahead(operation.source.topic, operation.source.offset):
            return
        standing, number = self._standing[conversation_id], bytes.fromhex(operation.id)
        if operation.op == "assert":
            standing[number] = shown_of(operation).digest()
        else:
            standing.pop(number, None)

    def _note_first_transition(self, record: Record) -> None:
        if self._transitions_since == times.text(times.LATEST_MS):
            latest_ms = record.timestamp_ms + self._rules.future_skew_max_s * 1_000
            self._transitions_since = times.text(max(latest_ms, times.EARLIEST_MS))

    def compare(self, stream_ms: int | None) -> None:
        """Compare what was recomputed with what was published; to be called once, after everything was taken in.

        `stream_ms` is the stream time by which conversations may have been evicted meanwhile.
        """
        self._stream_ms = max((each for each in (self._replay.stream_ms, stream_ms) if each is not None), default=None)
        store = self._replay.store
        for conversation_id, state in store.items():
            published = self._published.get(conversation_id)
            self._judge(conversation_id, state, published)
        for conversation_id, published in self._published.items():
            if store.get(conversation_id) is None:
                self._judge(conversation_id, None, published)
        unseen = sum(each not in self._published and store.get(each) is None for each in self._ahead)
        if unseen:
            self.comparison.conversations += unseen
            self.comparison.apart["ahead"] += unseen

    def differences(
        self, conversation_id: str, published: bytes | None, standing: Mapping[str, Shown]
    ) -> Iterator[tuple[What, Differing]]:
        """Every difference of a conversation in `different`, given the published side in full."""
        recomputed = self._replay.store.get(conversation_id)
        if published is None or recomputed is None:
            sides = (
                None if each is None else msgspec.to_builtins(known.summary(each)) for each in (published, recomputed)
            )
            yield "state", Differing("", *sides)
        else:
            for each in differing(_document(published), _document(recomputed)):
                yield "state", each
        expected = {} if recomputed is None else self._expected(recomputed)
        for number in sorted(self.different[conversation_id]):
            told = (msgspec.to_builtins(side.get(number)) for side in (standing, expected))
            yield "transition", Differing(number, *told)

    def compares(self, record: Record) -> bool:
        """Whether what a record of the state or the transitions topic says is compared, and not ahead."""
        if record.value is None:
            return True
        source = _SOURCED.decode(record.value).source
        return not self._is_ahead(source.topic, source.offset)

    def _is_ahead(self, topic: str, offset: int) -> bool:
        return topic == self._input_topic and offset >= self._bound

    def _seen_before(self, published: bytes, offset: int) -> bool:
        """Whether a state may hold what a deleted record said: it tells of a time before the first records left."""
        if self._begin == 0:
            return False
        first = times.text(max(times.EARLIEST_MS, self.first_ms or times.LATEST_MS))
        return offset < self._begin or min(_TIME.findall(published), default=b"") < first.encode()

    def _judge(self, conversation_id: str, state: bytes | None, published: _Published | None) -> None:
        comparison = self.comparison
        comparison.conversations += 1
        wrong = set() if state is None else self._wrong_transitions(conversation_id, state)
        if state is not None and published is not None and _digest(state) == published.digest:
            if not wrong:
                comparison.equal += 1
                return
            apart = self._transitions_apart(conversation_id, state, wrong)
        else:
            apart = self._apart(conversation_id, state, published)
        if apart is not None:
            comparison.apart[apart] += 1
            return
        comparison.different += 1
        comparison.different_transitions += len(wrong)
        self.different[conversation_id] = wrong

    def _transitions_apart(self, conversation_id: str, state: bytes, wrong: set[str]) -> Apart | None:
        """Why transitions may differ by design where the states are equal: they follow from the state."""
        if self._has_returned(conversation_id):
            return "returned"
        expected, since = self._expected(state), self._transitions_since
        if since is not None and all(each in expected and expected[each].event_time <= since for each in wrong):
            return "transitions_deleted"
        return None

    def _apart(self, conversation_id: str, state: bytes | None, published: _Published | None) -> Apart | None:
        """Why a state that is not equal may be so by design."""
        if self._has_returned(conversation_id):
            return "returned"
        if conversation_id in self._refused:
            return "refused"
        if published is not None:
            if state is None and self._is_over(published.live, published.snapshot_time):
                return "evicted"
            return "before_input" if published.seen_before or conversation_id in self._before else None
        assert state is not None
        if conversation_id in self._ahead:
            return "ahead"
        summary = known.summary(state)
        if self._is_over(summary.live, summary.snapshot_time):
            return "evicted"
        was_before = conversation_id in self._before or self._seen_before(state, source_of(state).offset)
        return "before_input" if was_before else None

    def _has_returned(self, conversation_id: str) -> bool:
        return conversation_id in self._replay.returned or (
            conversation_id in self._tombstones and conversation_id in self._published
        )

    def _is_over(self, live: int, snapshot_time: str) -> bool:
        return self._stream_ms is not None and self._replay.store.is_over(live, snapshot_time, self._stream_ms)

    def _expected(self, state: bytes) -> dict[str, Shown]:
        """The transitions that should stand, by id."""
        return {
            one.id: _shown(each, one)
            for each in communications(_STATE.decode(state), self._rules.park_cycles_max)
            for one in each.transitions
        }

    def _wrong_transitions(self, conversation_id: str, state: bytes) -> set[str]:
        """Ids of transitions that stand and should not, should and do not, or are not as they should be."""
        expected = {number: each.digest() for number, each in self._expected(state).items()}
        self.comparison.transitions += len(expected)
        standing = {number.hex(): each for number, each in self._standing.get(conversation_id, {}).items()}
        return {number for number, _ in expected.items() ^ standing.items()}


def shown_of(operation: Transition) -> Shown:
    """What is compared of a published transition."""
    return _shown(operation, operation)


def _shown(owner: CommunicationView | Transition, transition: StandingTransition | Transition) -> Shown:
    return Shown(
        owner.participant_id,
        owner.media,
        owner.communication_id,
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
