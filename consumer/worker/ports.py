"""What a worker needs from outside the process, as protocols. `consumer.kafka` implements them, and fakes in tests.

Errors that an implementation may raise, and what the worker does:

| error         | meaning                                   | what the worker does                   |
| ------------- | ----------------------------------------- | -------------------------------------- |
| `RetriableError` | the broker does not answer, or cannot now | drops what is staged, reopens the lane |
| `FencedError`      | another worker owns the partition         | drops the lane until assigned again    |
| `ConfigurationError`      | settings, permissions or topics are wrong | ends the process with the message      |
| `UnreadableError`  | a batch is too large to be read           | stops the lane, the others go on       |
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final, Literal, Protocol, get_args

import msgspec
from msgspec import Struct

from consumer.core.record import Record
from consumer.engine.commit_stats import CommitStats
from consumer.engine.output import Output
from consumer.engine.protocol import Engine
from consumer.settings import OutputName
from consumer.worker.offset_metadata import Ends, OffsetMetadata
from consumer.worker.settlement import Settlement, Verdict
from consumer.worker.standstill import Lag, LogEnd, Standstill


class ExternalError(Exception):
    """Base of what can go wrong outside the process. The message says what to do and holds no data of records."""


class RetriableError(ExternalError):
    """A failure that can heal by itself."""


class FencedError(ExternalError):
    """The lane's transactional id was taken over."""


class ConfigurationError(ExternalError):
    """A failure that only an operator can fix."""


class UnreadableError(ConfigurationError):
    """A batch is larger than `Settings.decompressed_bytes_max` once it is decompressed."""

    def __init__(self, message: str, stand_in: Record) -> None:
        super().__init__(message)
        self.stand_in = stand_in
        """A record in its place: its `next_offset` is where the batch ends."""


class Committed(Struct, frozen=True):
    """The group's committed offset of an input partition, with what was stored beside it."""

    next_offset: int
    metadata: str


class Chunk(Struct, frozen=True):
    """Part of a state topic's partition, in order. A None value is a tombstone."""

    entries: list[tuple[bytes, bytes | None]]
    next_offset: int
    end_offset: int


class Effects(Struct, frozen=True):
    """Everything that one commit makes visible at once."""

    next_offset: int
    """The input offset to continue from."""
    metadata: OffsetMetadata
    """For the offset's metadata; its `ends` are those of the commit before."""
    states: Sequence[Output]
    transitions: Sequence[Output]
    dead_letters: Sequence[Output]

    def committed(self, ends: Ends) -> Committed:
        """The offset to commit, once it is known where the records of this commit end."""
        metadata = msgspec.structs.replace(self.metadata, ends=self.metadata.ends.advance(ends))
        return Committed(self.next_offset, metadata.text())


class LaneRestored(Struct, frozen=True):
    """What a lane has restored."""

    conversations: int
    bytes: int
    """Of the published states."""
    duration_s: float
    """Of the whole opening."""


class InputConsumer(Protocol):
    """The group member that reads the input topic."""

    async def fetch(self, partition: int, records_max: int, timeout_s: float) -> Sequence[Record]:
        """Up to `records_max` records of an assigned partition, none if the time passes without. May be cancelled.

        Raises UnreadableError, after all records before the batch were returned; with `Settings.oversized_batches` of
        `dead_letter` it returns the record that stands in for the batch.
        """

    async def confirm_membership(self) -> None:
        """Ask the group whether this worker is still a member. Raises RetriableError if it does not say so."""

    async def committed(self, partition: int) -> Committed | None:
        """Where the group stands, None if it never committed."""

    async def topic_id(self) -> str:
        """The id of the input topic, which changes when it is deleted and created again; empty if not known."""

    async def seek(self, partition: int, next_offset: int | None) -> int:
        """Continue from an offset, None for the beginning; returns where that is.

        An offset that the partition does not hold, any more or yet, gives the beginning as well.
        """

    async def lag_records(self, partition: int) -> int | None:
        """Offsets between the position and the end of the partition, as the last fetch had it; None if not known."""

    async def position(self, partition: int) -> int | None:
        """The offset that is read next, past the markers of transactions; None if it is not known yet."""


class LogEnds(Protocol):
    """Asks the brokers that lead the partitions of the input where these end."""

    async def find(self, partitions: Sequence[int]) -> Mapping[int, LogEnd | str]:
        """The end by partition, or a sentence on why it is not known. Bounded in time; never raises."""


class StateLog(Protocol):
    """The reader of the state topic."""

    def read(self, partition: int, from_offset: int) -> AsyncGenerator[Chunk, None]:
        """The partition from an offset (0 for all of it) to its last stable offset as of the start of reading."""


class Publisher(Protocol):
    """A lane's producer."""

    async def open(self) -> None:
        """Take over the partition: fences an earlier owner and settles its transaction."""

    async def settlement(self) -> Settlement:
        """How far the brokers have decided over what this lane's transactions wrote, up to now."""

    async def shows(self, output: OutputName, from_offset: int) -> bool:
        """Whether an output holds a committed record of this lane at an offset or after it."""

    async def settle(self, settlement: Settlement, verdict: Verdict) -> None:
        """Decide over what hangs."""

    async def confirm(self) -> None:
        """Make sure that the last commit was decided everywhere. Raises RetriableError if it hangs."""

    async def commit(self, effects: Effects) -> Ends:
        """Publish all effects and the offset as one, after `confirm`; returns where they end in the outputs."""

    async def close(self) -> None:
        """Close the producer, within a bounded time. Never raises."""


Activity = Literal["fetch_wait", "process", "commit", "restore"]
ACTIVITIES: Final[tuple[Activity, ...]] = get_args(Activity)
Rebalance = Literal["assigned", "revoked"]
LaneEnd = Literal["drained", "revoked", "abandoned"]


class Telemetry(Protocol):
    """Receives what happens in the worker, for metrics and logs. Called from the event loop; must not block."""

    def committed(self, partition: int, stats: CommitStats, duration_s: float, lag_records: int | None) -> None:
        """A commit succeeded: count what it held."""

    def commit_failed(self, partition: int, error: ExternalError) -> None:
        """A commit or an opening failed and will be tried again."""

    def restored(self, partition: int, restored: LaneRestored) -> None:
        """A lane has restored its states and is open."""

    def restoring(self, partition: int, remaining: int) -> None:
        """So many records of the state topic are left to restore."""

    def transaction_repaired(self, partition: int, verdict: Verdict, hanging: Sequence[str]) -> None:
        """Brokers had lost the end of the lane's last transaction in these topics, and have it again."""

    def offset_reset(self, partition: int, wanted: int, at: int) -> None:
        """The committed offset is not in the partition: a lane starts at its beginning."""

    def lagging(self, partition: int, lag: Lag, still_since_s: float | None) -> None:
        """How far a lane is from the end of its partition, as its leader says, and since when that stands still.

        That is a monotonic time, None for a partition that moves.
        """

    def stands_still(self, partition: int, standstill: Standstill, remedy: str) -> None:
        """A partition does not move, though its log grows or may grow; `remedy` says what to do.

        Called again when another cause follows.
        """

    def moves_again(self, partition: int) -> None:
        """What kept a partition from moving is over."""

    def lane_closed(self, partition: int, reason: LaneEnd) -> None:
        """A lane is gone: its series must go too."""

    def breaker_opened(self, partition: int, cause: str) -> None:
        """A lane stopped consuming because of too many dead letters."""

    def unreadable(self, partition: int, error: UnreadableError) -> None:
        """A lane stopped at a batch that is too large."""

    def passed_over(self, partition: int, stand_in: Record) -> None:
        """A lane left out a batch that is too large; `stand_in` becomes its dead letter."""

    def rebalanced(self, kind: Rebalance, partitions: Sequence[int]) -> None:
        """The group gave partitions to this worker or took them away."""

    def spent(self, activity: Activity, seconds: float) -> None:
        """Loop time by what it was spent on."""


class LaneContext(Struct, frozen=True):
    """What a lane gets from the composition of the service."""

    input_consumer: InputConsumer
    state_log: StateLog
    new_publisher: Callable[[int], Publisher]
    telemetry: Telemetry
    on_commit: Callable[[Effects, CommitStats], None]
    """Called with what a lane has committed and its counts, as soon as that is certain."""
    monotonic_s: Callable[[], float]
    wall_ms: Callable[[], int]
    new_engine: Callable[[], Engine]
