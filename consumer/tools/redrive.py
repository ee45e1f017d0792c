"""Which dead letters go back into the input, and how a redrive remembers them. Pure.

1. A dead letter is identified by its partition and offset in the dead letters topic. It goes back at most once. If the
   worker rejects the record again, that is a new dead letter, whose header counts the attempts.
2. The transaction that writes the records also writes a *marker* into their partition of the dead letters topic, which
   names the dead letters that were redriven. Either both are there or neither, so the next redrive knows what an
   interrupted one has done.
3. Markers name ranges of dead letters instead of a position: what one filter skips, a later redrive with another filter
   may take. The offset of a consumer group cannot express that, and the broker deletes it after
   `offsets.retention.minutes`, while dead letters may be kept longer. A marker comes after its dead letters in the same
   log, so it outlives them.
4. There is one transactional id per partition. A redrive first starts that producer, which fences another redrive and
   settles its transaction, and only then reads the markers up to the last stable offset. So it misses none.
5. A redrive ends where the dead letters ended when it began: what comes back meanwhile waits for the next one.
6. A record goes back only if it would not become a dead letter again, as far as that can be known without the state of
   its conversation, and if it did not come back before.

Memory: two numbers per range. There is at most one range per redriven dead letter; without a filter, one per
transaction.
"""

import bisect
from typing import Final, Literal

import msgspec
from msgspec import Struct

from consumer.core.framing import parse_key
from consumer.core.outcomes import DeadLettered
from consumer.core.reasons import DeadLetterReason, Reason
from consumer.core.record import Record
from consumer.core.rules import Rules
from consumer.core.step import step
from consumer.engine.dead_letters import MARKER_HEADER, DeadLetter, is_marker
from consumer.engine.output import Output

Decision = Literal[
    "redrive", "redriven", "left_out", "other_topic", "no_partition", "too_often", "would_fail", "came_back"
]
DECISIONS: Final[dict[Decision, str]] = {
    "redrive": "goes back into the input",
    "redriven": "went back before",
    "left_out": "carries no payload: the original is at its source offset as long as the input topic keeps it",
    "too_often": "has been redriven --attempts-max times and came back each time",
    "other_topic": "comes from another topic than CC_INPUT_TOPIC",
    "no_partition": "comes from a partition that the input topic does not have",
    "would_fail": "would become a dead letter again: fix the cause first; --again sends it all the same",
    "came_back": "went back before and came back as this one; --again sends it once more",
}
"""What a redrive decides about a dead letter that was selected, and the words for it."""


class DeadLetterStatus(Struct, frozen=True):
    """A dead letter, and whether it was redriven."""

    letter: DeadLetter
    is_redriven: bool


class Selection(Struct, frozen=True, kw_only=True):
    """Which dead letters are selected. An empty set and None match all."""

    reasons: frozenset[DeadLetterReason] = frozenset()
    keys: frozenset[bytes] = frozenset()
    """Keys as they stand, or the ids that they spell."""
    partitions: frozenset[int] = frozenset()
    """Partitions of the input."""
    since_ms: int | None = None
    """The earliest time at which they became dead letters, inclusive, in epoch milliseconds."""
    until_ms: int | None = None
    """The latest time, exclusive, in epoch milliseconds."""

    def matches(self, letter: DeadLetter) -> bool:
        """Whether a dead letter is selected. One whose payload was left out has no key."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.keys or self._selects(letter.original.key))
            and (not self.partitions or letter.original.partition in self.partitions)
            and (self.since_ms is None or letter.time_ms >= self.since_ms)
            and (self.until_ms is None or letter.time_ms < self.until_ms)
        )

    def _selects(self, key: bytes | None) -> bool:
        spelled = None if key is None else parse_key(key)
        return key in self.keys or (spelled is not None and spelled.value in self.keys)


class Destination(Struct, frozen=True):
    """The topic that records go back to, and the terms on which they do."""

    topic: str
    partitions: int
    attempts_max: int
    """How often one record may be redriven."""
    rules: Rules
    """Those of the workers there."""
    again: bool = False
    """Whether a record goes back that would fail again, or that came back before."""


class Verdict(Struct, frozen=True):
    """What a redrive does with a dead letter."""

    decision: Decision
    reason: Reason = ""
    """Why the record would fail again; empty for other decisions."""


def decide(letter: DeadLetter, redriven: "RedrivenOffsets", destination: Destination) -> Verdict:
    """What a redrive does with a dead letter, which is processed once more to find out whether it would fail."""
    if letter.offset in redriven:
        return Verdict("redriven")
    if letter.left_out:
        return Verdict("left_out")
    if letter.original.topic != destination.topic:
        return Verdict("other_topic")
    if letter.original.partition >= destination.partitions:
        return Verdict("no_partition")
    if letter.redrives >= destination.attempts_max:
        return Verdict("too_often")
    if destination.again:
        return Verdict("redrive")
    outcome = step(letter.original, destination.rules, None, _find_no_state)
    if isinstance(outcome, DeadLettered):
        return Verdict("would_fail", outcome.reason)
    return Verdict("came_back" if letter.redrives else "redrive")


def _find_no_state(_: str) -> None:
    """Decide without states: only what is wrong with the record itself is sure to fail again."""


class MarkerError(ValueError):
    """A marker cannot be decoded. To ignore it could redrive a dead letter twice."""


class _Marker(Struct):
    redriven: list[tuple[int, int]]


_DECODER: Final = msgspec.json.Decoder(_Marker)


class RedrivenOffsets:
    """The offsets of the redriven dead letters of one partition."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def __contains__(self, offset: int) -> bool:
        index = bisect.bisect_right(self._ranges, (offset, float("inf")))
        return index > 0 and self._ranges[index - 1][1] >= offset

    def add(self, record: Record) -> None:
        """Add what a record of the partition names if it is a marker; ignore it otherwise. Raises MarkerError."""
        if not is_marker(record):
            return
        try:
            ranges = _DECODER.decode(record.value or b"").redriven
        except msgspec.DecodeError as error:
            raise MarkerError(f"partition {record.partition}, offset {record.offset}") from error
        for first_and_last in ranges:
            bisect.insort(self._ranges, first_and_last)


class Batch:
    """The dead letters of one partition, in offset order, for one transaction, and the marker that names them."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self._ranges: list[tuple[int, int]] = []
        self._is_contiguous = False
        """Whether the next dead letter extends the last range."""

    def add(self, letter: DeadLetter) -> None:
        """Add the next dead letter."""
        first = self._ranges.pop()[0] if self._is_contiguous else letter.offset
        self._ranges.append((first, letter.offset))
        self._is_contiguous = True
        self.letters.append(letter)

    def skip(self) -> None:
        """Note that the next dead letter stays where it is, so that no range spans it."""
        self._is_contiguous = False

    def marker(self, topic: str, partition: int) -> Output:
        """The marker, for the partition of the dead letters topic."""
        value = msgspec.json.encode(_Marker(self._ranges))
        return Output(None, value, ((MARKER_HEADER, str(len(self.letters)).encode()),), topic, partition)
