"""Whether a partition of the input stands still although its log grows, or may grow. Pure.

| cause              | what is observed                                                                     |
| ------------------ | ------------------------------------------------------------------------------------ |
| `leader`           | no broker leads the partition, or its leader cannot be reached                       |
| `open_transaction` | everything before an open transaction is read, and records wait for its end          |
| `unread`           | records wait that are neither read nor committed, or the lane never opened           |

A lane moves when it commits, and while it gets further than it was since its last commit. A lane that reads the same
records again and again and cannot commit them stands still.
"""

import shlex
from typing import Final, Literal

from msgspec import Struct

from consumer.kafka_commands import abort_command, kafka_command
from consumer.settings import Settings

Cause = Literal["leader", "open_transaction", "unread"]

STANDSTILL_S: Final = 10.0
"""How long a partition may not move before it stands still: a leader is elected faster than that."""


class LogEnd(Struct, frozen=True):
    """Where a partition of the input ends, as its leader says."""

    end: int
    """Behind the last record, with what is not committed."""
    stable: int
    """Where a reader of committed records has to stop: at the first open transaction, or at the end."""
    open_since_ms: int | None = None
    """The timestamp of the newest record of that transaction, in epoch milliseconds."""
    topic_id: str = ""
    """The id of the topic by now; empty if not known."""

    @property
    def undecided(self) -> int:
        """Offsets that wait for the end of a transaction."""
        return self.end - self.stable


def describe_undecided(settings: Settings, partition: int, end: LogEnd, now_ms: int) -> tuple[str, str]:
    """Two sentences: what waits for the end of a transaction and since when, and what to do if it hangs."""
    topic = settings.input_topic
    age = (
        ""
        if end.open_since_ms is None
        else f", whose newest record is {(now_ms - end.open_since_ms) / 1_000:.0f} s old"
    )
    hanging = f"find-hanging --topic {shlex.quote(topic)} --partition {partition}"
    found = (
        f"partition {partition} of {topic!r}: {end.undecided} offsets from {end.stable} on wait for the end of a "
        f"transaction{age}"
    )
    remedy = (
        f"see that its producer ends it; if that is gone, {kafka_command(settings, 'kafka-transactions', hanging)} "
        f"finds it, and {abort_command(settings, topic, partition, end.stable)} aborts it"
    )
    return found, remedy


class Lag(Struct, frozen=True):
    """How far a lane is from the end of its partition."""

    records: int | None
    """Offsets between its position and the end; None where the leader does not say."""
    undecided: int = 0
    """How many of them wait for the end of a transaction."""
    undecided_s: float = 0.0
    """The age of the newest record of that transaction."""


class Standstill(Struct, frozen=True):
    """A partition that stands still."""

    cause: Cause
    message: str
    """A sentence: what is observed, and the reason if it is known."""
    since_s: float
    """The monotonic time at which it moved last, or its leader was last heard of."""


class Mark(Struct, frozen=True):
    """How far a lane is; None for what it does not know."""

    position: int | None
    next_offset: int | None
    committed_offset: int | None


class Movement:
    """How one partition moved so far, also over lanes that follow each other."""

    def __init__(self, now_s: float) -> None:
        self._committed: int | None = None
        self._furthest = -2  # before anything that is seen
        self._since_s = now_s

    def note(
        self, mark: Mark, end: LogEnd | str, problem: str, now_s: float, standstill_s: float = STANDSTILL_S
    ) -> Standstill | None:
        """Compare with the last look; returns the standstill of the partition, if it stands still by now.

        A text in place of `end` says why the end is not known. `problem` is what keeps the lane from reading, if known.
        `standstill_s` is how long it may not move.
        """
        cause, found = _obstacle(mark, end, problem)
        furthest = max(_or_before_all(mark.position), _or_before_all(mark.next_offset))
        has_committed = mark.committed_offset not in {None, self._committed}
        if cause is None or has_committed or furthest > self._furthest:
            self._since_s = now_s
        if has_committed:
            self._committed = mark.committed_offset
        self._furthest = furthest if has_committed else max(furthest, self._furthest)
        if cause is None or now_s - self._since_s < standstill_s:
            return None
        return Standstill(cause, found, self._since_s)


def _or_before_all(offset: int | None) -> int:
    return -1 if offset is None else offset


def _obstacle(mark: Mark, end: LogEnd | str, problem: str) -> tuple[Cause | None, str]:
    """What may keep the lane from moving, None if it has nothing to read."""
    if isinstance(end, str):
        return "leader", end
    why = f": {problem}" if problem else ""
    if mark.position is None:
        return "unread", f"the lane is not open yet{why}"
    if mark.position >= end.end:
        uncommitted = _or_before_all(mark.next_offset) - _or_before_all(mark.committed_offset)
        if uncommitted <= 0:
            return None, ""
        return "unread", f"{uncommitted} records are read and not committed{why}"
    if mark.position >= end.stable:
        return "open_transaction", f"{end.end - mark.position} records wait for the end of a transaction"
    return "unread", f"{end.stable - mark.position} records wait and none is read{why}"
