"""Which dead letters go back into the input, and how it is remembered that they did. Pure.

1. A dead letter is its partition and offset in the dead letters topic. It goes back at most once. A record that comes
   back from the worker is a dead letter of its own, and its header counts the attempts.
2. In one transaction with the records, a *marker* is written into the partition of the dead letters: which of them were
   redriven. So either both are there or none, and whatever interrupts a redrive, the next one knows.
3. Markers name dead letters one by one (as ranges), not a position: what a filter skipped can be redriven later under
   another. The offset of a consumer group could not say that, and would be forgotten after the broker's
   `offsets.retention.minutes`, while letters may be kept longer. A marker stands behind its letters in the same log,
   and so outlives them.
4. One transactional id per partition: whoever opens it fences another redrive and settles what that left, and only then
   reads the markers, up to the last stable offset. So what is read is all there is.
5. A redrive ends where the dead letters ended when it began: what comes back meanwhile waits for the next.

Memory: a pair of numbers per range, which is at most one per letter redriven, and one per transaction without filter.
"""

import bisect
from typing import Final, Literal

import msgspec
from msgspec import Struct

from consumer.core.record import Record
from consumer.runtime.dead_letters import DeadLetter
from consumer.runtime.republish import NO_TIMESTAMP, Copy

MARKER_HEADER: Final = "cc-redriven"
"""Header of a marker: how many dead letters it names."""

Fate = Literal["redrive", "redriven", "left_out", "too_often", "other_topic", "no_partition"]
FATES: Final[dict[Fate, str]] = {
    "redrive": "goes back into the input",
    "redriven": "went back before",
    "left_out": "carries no payload: the original is at its source offset as long as the input topic keeps it",
    "too_often": "has been redriven --attempts-max times and came back each time",
    "other_topic": "comes from another topic than CC_INPUT_TOPIC",
    "no_partition": "comes from a partition that the input topic does not have",
}
"""What can become of a dead letter that was asked for."""


class Selection(Struct, frozen=True, kw_only=True):
    """Which dead letters are asked for. What is empty or None selects all."""

    reasons: frozenset[str] = frozenset()
    keys: frozenset[bytes] = frozenset()
    partitions: frozenset[int] = frozenset()
    """Partitions of the input."""
    since_ms: int | None = None
    """When they became dead letters: from, inclusive."""
    until_ms: int | None = None
    """Until, exclusive."""

    def holds(self, letter: DeadLetter) -> bool:
        """Whether a dead letter is asked for. One whose key was left out has no key."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (not self.keys or letter.original.key in self.keys)
            and (not self.partitions or letter.original.partition in self.partitions)
            and (self.since_ms is None or letter.time_ms >= self.since_ms)
            and (self.until_ms is None or letter.time_ms < self.until_ms)
        )


class Destination(Struct, frozen=True):
    """Where redriven records go, and how often at most."""

    topic: str
    partitions: int
    attempts_max: int


def fate(letter: DeadLetter, ledger: "Ledger", destination: Destination) -> Fate:
    """What would become of a dead letter now."""
    if letter.offset in ledger:
        return "redriven"
    if letter.left_out:
        return "left_out"
    if letter.original.topic != destination.topic:
        return "other_topic"
    if letter.original.partition >= destination.partitions:
        return "no_partition"
    return "too_often" if letter.redrives >= destination.attempts_max else "redrive"


class MarkerError(ValueError):
    """A marker that cannot be read: to go on could redrive something twice."""


class _Marker(Struct):
    redriven: list[tuple[int, int]]


_DECODER: Final = msgspec.json.Decoder(_Marker)


class Ledger:
    """The dead letters of one partition that were redriven, by offset."""

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def __contains__(self, offset: int) -> bool:
        at = bisect.bisect_right(self._ranges, (offset, float("inf")))
        return at > 0 and self._ranges[at - 1][1] >= offset

    def note(self, record: Record) -> bool:
        """Take in a record of the partition; whether it is a marker. Raises MarkerError."""
        if not is_marker(record):
            return False
        try:
            ranges = _DECODER.decode(record.value or b"").redriven
        except msgspec.DecodeError as error:
            raise MarkerError(f"partition {record.partition}, offset {record.offset}") from error
        for each in ranges:
            bisect.insort(self._ranges, each)
        return True


class Batch:
    """What one transaction will hold: letters of one partition in their order, and the marker that names them."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []
        self._ranges: list[tuple[int, int]] = []
        self._open = False

    def add(self, letter: DeadLetter) -> None:
        """Take a letter in."""
        first = self._ranges.pop()[0] if self._open else letter.offset
        self._ranges.append((first, letter.offset))
        self._open = True
        self.letters.append(letter)

    def skip(self) -> None:
        """A letter stays: a range may not reach across it."""
        self._open = False

    def marker(self, topic: str, partition: int) -> Copy:
        """The marker for the partition of the dead letters."""
        value = msgspec.json.encode(_Marker(self._ranges))
        return Copy(topic, partition, None, value, NO_TIMESTAMP, ((MARKER_HEADER, str(len(self.letters)).encode()),))


def is_marker(record: Record) -> bool:
    """Whether a record of the dead letters topic is no dead letter but the memory of a redrive."""
    return any(name == MARKER_HEADER for name, _ in record.headers)
