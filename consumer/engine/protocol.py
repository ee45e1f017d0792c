"""What a lane needs of an engine: the state machine of one partition, which processes its records a slice at a time.

1. What is processed is *staged*: it becomes committed as a whole by `commit`, or is dropped as a whole by `rollback`.
2. States, transitions, dead letters, counts, evictions and the circuit breaker's input are staged together: outputs
   and counts come back by the batch.
3. Every implementation gives the same bytes for the same records. The Python engine is the reference.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from consumer.core.record import Record
from consumer.engine.commit_stats import CommitStats
from consumer.engine.live_index import LiveIndex
from consumer.engine.output import Output

StopReason = Literal["end", "time", "breaker"]


class EngineFailedError(Exception):
    """An engine broke, by a bug of ours, and may be left in any state: `rollback` has to follow."""


class Slice(Struct, frozen=True):
    """How far a slice of work got."""

    next_index: int
    """The index of the first record that was not processed."""
    stopped_by: StopReason
    """The records ended, the time was used up, or the circuit breaker opened at the record before `next_index`."""
    seconds: float
    """How long it took."""


class Staged(Struct, frozen=True):
    """How much is staged: what decides when a commit is due."""

    records: int = 0
    bytes: int = 0
    """Of states and dead letters."""
    since_s: float = 0.0
    """When the first record was staged, by the lane's clock; meaningless without records."""


class Outputs(Struct, frozen=True):
    """The records to publish in one commit. Of each conversation the last state only; None is a tombstone.

    An engine may give PackableOutputs.
    """

    states: Sequence[Output]
    transitions: Sequence[Output]
    dead_letters: Sequence[Output]


class States(Protocol):
    """The committed states of a partition, as readers and a restore see them."""

    live_index: LiveIndex
    committed_bytes: int
    log_offset: int
    """Where to go on reading the state topic."""
    state_offset: int
    """The offset after the newest state in the state topic; `log_offset` may be past markers that follow."""

    def __len__(self) -> int:
        """How many conversations are committed."""

    def get(self, conversation_id: str) -> bytes | None:
        """The committed state of a conversation, as published."""

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Committed states by conversation id."""

    def restore(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Add records of the state topic, in order; `settle` must follow before anything is staged.

        Raises UnicodeDecodeError where a key is no conversation id.
        """

    def settle(self, most: int) -> bool:
        """Make up to `most` restored states committed ones; returns whether there are more.

        Raises msgspec.DecodeError and UnicodeDecodeError where one is no state.
        """

    def clear(self) -> None:
        """Forget everything, so that the states are restored from the beginning."""


class Engine(Protocol):
    """The state machine of one partition. Not safe for threads: it belongs to its lane."""

    @property
    def states(self) -> States:
        """The committed states."""

    @property
    def next_offset(self) -> int | None:
        """The offset after the last record that was processed or skipped; None before `start`."""

    @property
    def stream_ms(self) -> int | None:
        """Stream time of the partition, None at its beginning."""

    @property
    def staged(self) -> Staged:
        """How much is staged."""

    @property
    def stats(self) -> CommitStats:
        """The counts of what is staged."""

    @property
    def open_reason(self) -> str:
        """Why the circuit breaker is open, with the setting that decided; empty while it is closed."""

    def start(self, next_offset: int, stream_ms: int | None) -> None:
        """Continue from a committed offset with the stream time that was committed with it."""

    def skip_to(self, next_offset: int) -> None:
        """Continue from a later offset: only transaction markers lie before it."""

    def process(
        self, records: Sequence[Record], first_index: int, slice_s: float, *, now_s: float, now_ms: int
    ) -> Slice:
        """Process records from `first_index` on, at least one, until `slice_s` seconds have passed.

        Of a long record no more than a stage may get done, and the next call goes on with it. `now_s` is the lane's
        clock, for `Staged.since_s`; `now_ms` the wall clock, for the ages of records. Raises EngineFailedError.
        """

    def count_staged(self) -> int:
        """How many conversations there will be once what is staged is committed."""

    def outputs(self) -> Outputs:
        """All that is staged."""

    def commit(self, state_end: int | None) -> None:
        """What is staged is committed.

        `state_end` is the offset after its last state in the state topic, None if it holds no state.
        """

    def rollback(self) -> None:
        """Drop what is staged, but for the circuit breaker's input: whether the commit failed may not be known yet."""

    def settle_breaker(self, *, is_committed: bool) -> None:
        """Keep or drop what the circuit breaker has counted since the last commit."""

    def reset_breaker(self) -> None:
        """Close the circuit breaker and forget what it counted."""
